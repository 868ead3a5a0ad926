"""Log-mels → memory: running normalisation, convolutions that shorten time, recurrent blocks that look both ways.

The blocks alternate: one runs forward over everything heard, the next backward inside chunks. Nothing looks beyond its
chunk's end, so a stream comes out chunk by chunk, equal to the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.asr.features import NormState, RunningNorm
from melstate.mixers.block import Bidirectional, Block, ChunkBackward, Stack, StackState
from melstate.mixers.mixer import Mixer, create

FACTOR = 4  # mel frames per memory frame


class ShortenState(NamedTuple):
    """The last frame before each convolution: (B, 1, 1, M) and (B, channels, 1, M / 2)."""

    first: Tensor
    second: Tensor


class Shorten(nn.Module):
    """Two strided convolutions over time and frequency: (B, T, M) → (B, T / 4, dim)."""

    def __init__(self, bands: int, dim: int, channels: int = 32) -> None:
        super().__init__()
        if bands % FACTOR:
            raise ValueError(f"shorten: bands must be a multiple of {FACTOR}, got {bands}")
        self.bands, self.channels = bands, channels
        # Time is padded by hand, with the frame before.
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=(0, 1))
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=(0, 1))
        self.out = nn.Linear(channels * bands // FACTOR, dim)

    def init_state(self, batch: int) -> ShortenState:
        weight = self.out.weight
        return ShortenState(
            weight.new_zeros(batch, 1, 1, self.bands), weight.new_zeros(batch, self.channels, 1, self.bands // 2)
        )

    def forward(self, x: Tensor, state: ShortenState | None = None) -> tuple[Tensor, ShortenState]:
        """x (B, T, M), T a multiple of 4."""
        state = self.init_state(x.shape[0]) if state is None else state
        image = torch.cat([state.first.to(x.dtype), x[:, None]], dim=2)
        hidden = F.silu(self.first(image))
        halved = torch.cat([state.second.to(hidden.dtype), hidden], dim=2)
        quartered = F.silu(self.second(halved))
        y = self.out(quartered.transpose(1, 2).flatten(2))
        return y, ShortenState(image[:, :, -1:], halved[:, :, -1:])


class EncoderState(NamedTuple):
    """waiting (B, t, M): mel frames of an unfinished chunk; then the parts' own states."""

    waiting: Tensor
    norm: NormState
    shorten: ShortenState
    lower: StackState
    upper: StackState | None


class Memory(NamedTuple):
    """values (B, S, dim) normalised; tapped (B, S, dim) from the tap; lengths (B,) real frames, None if all are."""

    values: Tensor
    tapped: Tensor
    lengths: Tensor | None


class Encoder(nn.Module):
    """(B, T, M) log-mels → (B, ceil(T / 4), dim) memory.

    Args:
        bands: M.
        dim, layers: width and depth.
        mixer, mixer_options: any of melstate.mixers.mixer.names().
        direction: "chunk" alternates forward blocks with backward ones inside chunks; "forward" is causal;
            "both" looks at the whole recording in every block and cannot be streamed.
        chunk: memory frames (40 ms each) per chunk; also the block of the running normalisation.
        hidden, conv, dropout: of the blocks.
        channels: of the convolutions.
        tap: after how many layers to hand out the intermediate values as well.
        prior, memory: frames; see RunningNorm.
    """

    def __init__(
        self,
        bands: int,
        dim: int = 192,
        layers: int = 8,
        mixer: str = "gla",
        mixer_options: Mapping[str, Any] | None = None,
        direction: str = "chunk",
        chunk: int = 20,
        hidden: int | None = None,
        conv: int = 8,
        dropout: float = 0.1,
        channels: int = 32,
        tap: int | None = None,
        prior: float = 100.0,
        memory: float = 1500.0,
    ) -> None:
        super().__init__()
        if direction not in ("chunk", "forward", "both"):
            raise ValueError(f"encoder: direction must be 'chunk', 'forward' or 'both', got {direction!r}")
        tap = layers if tap is None else tap
        if not 0 < tap <= layers:
            raise ValueError(f"encoder: tap must be in 1..{layers} (layers), got {tap}")
        self.dim, self.chunk, self.frames = dim, chunk, chunk * FACTOR
        self.norm = RunningNorm(bands, self.frames, prior, memory)
        self.shorten = Shorten(bands, dim, channels)
        self.dropout = dropout

        def mix(number: int) -> Mixer:
            made = create(mixer, dim, **(mixer_options or {}))
            if direction == "both":
                return Bidirectional(made, create(mixer, dim, **(mixer_options or {})))
            return ChunkBackward(made, chunk) if direction == "chunk" and number % 2 else made

        blocks = [Block(mix(number), hidden=hidden, conv=conv, dropout=dropout) for number in range(layers)]
        self.streamed = direction != "both"
        inside = chunk if self.streamed else None
        self.lower = Stack(blocks[:tap], chunk=inside, norm=tap == layers)
        self.upper = Stack(blocks[tap:], chunk=inside, norm=True) if tap < layers else None

    def init_state(self, batch: int) -> EncoderState:
        return EncoderState(
            self.norm.mean.new_zeros(batch, 0, self.norm.mean.shape[0]),
            self.norm.init_state(batch),
            self.shorten.init_state(batch),
            self.lower.init_state(batch),
            self.upper.init_state(batch) if self.upper is not None else None,
        )

    def forward(
        self,
        mel: Tensor,
        state: EncoderState | None = None,
        *,
        lengths: Tensor | None = None,
        final: bool = True,
        mask: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> tuple[Memory, EncoderState]:
        """Encodes what makes whole chunks, and with `final` the rest too.

        Args:
            mel: (B, T, M) from `features.log_mel`.
            state: what the call before returned; None at the start.
            lengths: (B,) real mel frames per row; only for whole recordings.
            final: no more is to come; another call with the returned state would be wrong.
            mask: (normalised features, lengths) → features, for SpecAugment.
        Raises: ValueError: direction="both" asked to stream, or lengths given to a stream.
        """
        if not self.streamed and (state is not None or not final):
            raise ValueError("encoder: direction='both' needs the whole recording in one call")
        if lengths is not None and (state is not None or not final):
            raise ValueError("encoder: lengths are for whole recordings; streams have one length")
        state = self.init_state(mel.shape[0]) if state is None else state
        mel = torch.cat([state.waiting.to(mel.dtype), mel], dim=1)
        ready = mel.shape[1] if final else mel.shape[1] // self.frames * self.frames
        mel, waiting = mel[:, :ready], mel[:, ready:]
        if not ready:
            empty = mel.new_zeros(mel.shape[0], 0, self.dim)
            return Memory(empty, empty, None if lengths is None else lengths), state._replace(waiting=waiting)
        x, norm = self.norm(mel, state.norm, lengths=lengths)
        if mask is not None:
            x = mask(x, lengths)
        x, shorten = self.shorten(F.pad(x, (0, 0, 0, -ready % FACTOR)), state.shorten)
        x = F.dropout(x, self.dropout, self.training)
        short = None if lengths is None else memory_frames(lengths)
        tapped, lower = self.lower(x, state.lower, lengths=short, final=final)
        values, upper = tapped, None
        if self.upper is not None:
            values, upper = self.upper(tapped, state.upper, lengths=short, final=final)
        return Memory(values, tapped, short), EncoderState(waiting, norm, shorten, lower, upper)


def memory_frames(mel_frames: Tensor) -> Tensor:
    """Memory frames that so many mel frames make."""
    return (mel_frames + FACTOR - 1) // FACTOR
