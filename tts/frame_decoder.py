"""Stretched symbol encodings → mel, F0 and voicing, with a state of constant size.

Steps of `reduction` frames pass through local convolution blocks that see a few steps ahead (everything ahead is known
once durations are), then F0 and voicing are decided, then recurrent blocks write the mel knowing them: each carries a
causal mixer's state and a causal convolution's last inputs, and may look back from the end of its own chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.mixers.block import ChunkBackward
from melstate.mixers.mixer import create
from melstate.tts.conv_block import ChannelDropout, ConvFeedForward
from melstate.tts.length import POSITIONS, path_symbols, positions
from melstate.tts.variance import harmonic_bands, harmonic_comb
from melstate.vocoders.mel import MelConfig

# log F0 in corpus deviations, its square, voicing.
CONTOUR_FEATURES = 3


class StepInputs(NamedTuple):
    """What is known of an utterance once its durations are.

    Attributes:
        table: (B, N + 1, reduction * dim) what each symbol contributes to each frame of a step; the last row is zero.
        pitch: (B, N + 1) corpus deviations; the last is zero.
        path: (B, steps * reduction) symbol of each frame, N past the end.
        positions: (B, steps * reduction, 3) as melstate.tts.length.positions gives them.
        lengths: (B,) real steps.
    """

    table: Tensor
    pitch: Tensor
    path: Tensor
    positions: Tensor
    lengths: Tensor

    @property
    def steps(self) -> int:
        return int(self.lengths.max())


class Decoded(NamedTuple):
    """mel (B, n_mels, T) normalised; f0 (B, T) log F0 in corpus deviations; voicing (B, T) logit."""

    mel: Tensor
    f0: Tensor
    voicing: Tensor


class BlockState(NamedTuple):
    """Of one recurrent block: the mixer's state, and the convolution's last inputs (B, kernel − 1, dim)."""

    mixer: Any
    conv: Tensor


class RecurrentBlock(nn.Module):
    """Mixer (carried forward, and back within chunks if `backward`) and causal convolutional feed-forward."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        mixer: str,
        options: Mapping[str, Any],
        kernel: int,
        backward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mixer = create(mixer, dim, **options)
        self.back = ChunkBackward(create(mixer, dim, **options), backward) if backward else None
        self.feed_forward = ConvFeedForward(dim, hidden, kernel, dropout)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor, state: BlockState | None) -> tuple[Tensor, BlockState]:
        """(B, T, dim) starting at a chunk's first step, real steps (B,) → the same shape and the next state."""
        normed = self.norm(x)
        mixed, mixer_state = self.mixer(normed, None if state is None else state.mixer)
        if self.back is not None:
            mixed = mixed + self.back(normed, lengths=lengths.clamp(0, x.shape[1]))[0]
        x, conv_state = self.feed_forward.causal(x + self.dropout(mixed), None if state is None else state.conv)
        return x, BlockState(mixer_state, conv_state)


class FrameDecoder(nn.Module):
    """See the module's docstring; arguments as in FastSpeech.

    Attributes: chunk: calls must start at multiples of this many steps.
    """

    bands: Tensor

    def __init__(
        self,
        mel: MelConfig,
        dim: int,
        hidden: int,
        local_blocks: int,
        blocks: int,
        mixer: str,
        options: Mapping[str, Any],
        kernel: int,
        reduction: int,
        backward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.reduction, self.chunk = reduction, backward or 32
        self.ahead = local_blocks * (kernel // 2)
        self.spread = nn.Linear(dim, reduction * dim)
        self.place = nn.Linear(reduction * POSITIONS, dim)
        self.local = nn.ModuleList(ConvFeedForward(dim, hidden, kernel, dropout) for _ in range(local_blocks))
        self.contour_norm = nn.LayerNorm(dim)
        self.contour = nn.Linear(dim, 2 * reduction)
        self.register_buffer("bands", harmonic_bands(mel), persistent=False)
        self.read_contour = nn.Linear(reduction * (CONTOUR_FEATURES + len(self.bands)), dim)
        self.blocks = nn.ModuleList(
            RecurrentBlock(dim, hidden, mixer, options, kernel, backward, dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        self.write = nn.Linear(dim, reduction * mel.n_mels)
        self.comb_gain = nn.Linear(dim, reduction * len(self.bands))
        nn.init.zeros_(self.comb_gain.weight)
        nn.init.zeros_(self.comb_gain.bias)

    def stretch(self, encoded: Tensor, pitch: Tensor, durations: Tensor, frames: int) -> StepInputs:
        """encoded (B, N, dim), pitch (B, N), durations (B, N) whole frames, `frames` the longest row's sum."""
        steps = -(-frames // self.reduction)
        path = path_symbols(durations, steps * self.reduction)
        spread = self.spread(encoded)
        return StepInputs(
            F.pad(spread, (0, 0, 0, 1)),
            F.pad(pitch, (0, 1)),
            path,
            positions(durations, path),
            (durations.sum(1) + self.reduction - 1) // self.reduction,
        )

    def forward(
        self,
        inputs: StepInputs,
        state: tuple[BlockState, ...] | None = None,
        *,
        f0_scale: tuple[Tensor, Tensor],
        given: tuple[Tensor, Tensor] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[Decoded, tuple[BlockState, ...]]:
        """Decode steps start..stop (a multiple of `chunk`; to the end if None or beyond it).

        Args:
            f0_scale: mean and deviation of log F0, to go back to Hz.
            given: (B, T) log F0 in corpus deviations and voicing 0/1 to write the mel by instead of the predicted ones.
        Returns: frames of those steps, and the state to continue with.
        """
        if start % self.chunk:
            raise ValueError(f"decoding must start at a multiple of {self.chunk} steps, got {start}")
        stop = min(inputs.steps, inputs.steps if stop is None else stop)
        x = self._local(inputs, start, stop)
        batch, r = len(x), self.reduction
        frames = slice(start * r, stop * r)
        path = inputs.path[:, frames]
        real = (path < inputs.table.shape[1] - 1).float()

        contour = self.contour(self.contour_norm(x)).float().view(batch, -1, 2)
        f0, voicing = contour[..., 0] + inputs.pitch.gather(1, path), contour[..., 1]
        if given is None:
            read_f0, read_voiced = f0, (voicing > 0).float()
        else:
            read_f0, read_voiced = (F.pad(g, (0, stop * r - g.shape[1]))[:, frames] for g in given)
        read_f0, read_voiced = read_f0 * real, read_voiced * real
        hertz = (read_f0 * f0_scale[1] + f0_scale[0]).exp()
        comb = harmonic_comb(hertz, read_voiced, self.bands)
        near = read_f0.clamp(-5, 5)
        features = torch.cat([torch.stack([near, near.square() / 4, read_voiced], -1), comb], -1)
        x = x + self.read_contour(features.reshape(batch, -1, r * features.shape[-1]))

        states = []
        for index, block in enumerate(self.blocks):
            x, after = block(x, inputs.lengths - start, None if state is None else state[index])
            states.append(after)
        x = self.norm(x)
        mel = self.write(x).float().reshape(batch, stop * r - start * r, -1)
        gain = self.comb_gain(x).float().reshape(batch, stop * r - start * r, -1)
        low = len(self.bands)
        mel = torch.cat([mel[..., :low] + gain * comb, mel[..., low:]], -1)
        return Decoded(mel.transpose(1, 2), f0, voicing), tuple(states)

    def _local(self, inputs: StepInputs, start: int, stop: int) -> Tensor:
        """Steps start..stop after the local blocks, which are computed on as many steps more as they look at."""
        first, last = max(0, start - self.ahead), min(inputs.steps, stop + self.ahead)
        batch, r = len(inputs.path), self.reduction
        path = inputs.path[:, first * r : last * r].view(batch, -1, r)
        dim = inputs.table.shape[2] // r
        x = self.place(inputs.positions[:, first * r : last * r].reshape(batch, -1, r * POSITIONS))
        for frame in range(r):
            part = inputs.table[..., frame * dim : (frame + 1) * dim]
            x = x + part.gather(1, path[..., frame : frame + 1].expand(-1, -1, dim))
        steps = torch.arange(first, last, device=x.device)
        inside = (steps < inputs.lengths[:, None]).unsqueeze(-1)
        for block in self.local:
            x = block(x, inside)
        return x[:, start - first : stop - first]
