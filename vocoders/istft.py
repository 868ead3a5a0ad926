"""Inverse STFT as a layer, and the Vocos-style generator that is mostly that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from melstate.vocoders.convnext import ConvNeXt, TrunkVocoder
from melstate.vocoders.layers import Layer, Span, bordered
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.spectral import overlap_add
from melstate.vocoders.vocoder import VocoderBatch


class ReflectOne(Layer):
    """Repeats row 1 before row 0, so that the sequence is one longer: ReflectionPad1d((1, 0))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 1:2], x], dim=1)

    def place(self, span: Span) -> Span:
        # Row -1 waits for row 1, two rows late; it then counts as row 0.
        return Span(span.first - 1, None if span.length is None else span.length + 1)

    def initial(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, 2, self.channels)

    def step(self, x: Tensor, span: Span, cache: Tensor) -> tuple[Tensor, Span, Tensor]:
        x = torch.cat([cache, x.to(cache.dtype)], dim=1)
        rows = x.shape[1]
        mirrored = bordered(x, Span(span.first - 2, None), "reflect")
        return mirrored[:, : rows - 2], self.place(span), x[:, rows - 2 :]


class InverseSTFT(Layer):
    """Log magnitudes and phases → samples, overlap-added and divided by the windows.

    Args:
        n_fft, hop: of the transform; a periodic Hann window of n_fft.
        trim: samples cut at each end: n_fft / 2 for T - 1 hops from T frames, (n_fft - hop) / 2 for T.
        phase: function on the phase outputs, whose values are radians.
        limit: largest magnitude.
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop: int,
        trim: int,
        phase: Callable[[Tensor], Tensor] | None = None,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        if n_fft % hop:
            raise ValueError(f"inverse STFT: n_fft must be a multiple of hop, got n_fft={n_fft}, hop={hop}")
        self.n_fft, self.hop, self.trim, self.phase, self.limit = n_fft, hop, trim, phase, limit
        self.overlap = n_fft // hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def _frames(self, x: Tensor) -> Tensor:
        """(B, T, n_fft + 2) → (B, T, n_fft) windowed."""
        magnitude, angle = x.to(self.window.dtype).chunk(2, dim=2)
        magnitude = torch.exp(magnitude)
        if self.limit is not None:
            magnitude = magnitude.clamp(max=self.limit)
        angle = angle if self.phase is None else self.phase(angle)
        spectrum = torch.complex(magnitude * angle.cos(), magnitude * angle.sin())
        return torch.fft.irfft(spectrum, n=self.n_fft) * self.window

    def _power(self, span: Span, rows: int) -> Tensor:
        """(rows, hop): squared windows of the frames 0..length-1 over the blocks from span.first on; never zero."""
        frame = span.first + torch.arange(rows, device=self.window.device)[:, None]
        frame = frame - torch.arange(self.overlap, device=self.window.device)
        real = (frame >= 0) if span.length is None else (frame >= 0) & (frame < span.length)
        return (real.to(self.window) @ self.window.square().view(self.overlap, -1)).clamp(min=1e-11)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[1] + self.overlap - 1
        audio = overlap_add(self._frames(x), self.overlap) / self._power(Span(0, x.shape[1]), rows)
        return audio.flatten(1)[:, self.trim : rows * self.hop - self.trim].unsqueeze(2)

    def place(self, span: Span) -> Span:
        length = None
        if span.length is not None:
            length = (span.length + self.overlap - 1) * self.hop - 2 * self.trim
        return Span(span.first * self.hop - self.trim, length)

    def initial(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, self.overlap - 1, self.hop, dtype=self.window.dtype)

    def step(self, x: Tensor, span: Span, cache: Tensor) -> tuple[Tensor, Span, Tensor]:
        rows = x.shape[1]
        total = overlap_add(bordered(self._frames(x), span, "zero"), self.overlap)
        total[:, : self.overlap - 1] += cache
        audio = total[:, :rows] / self._power(span, rows)
        return audio.flatten(1).unsqueeze(2), self.place(span), total[:, rows:]


class Vocos(TrunkVocoder):
    """ConvNeXt trunk at the mel's rate, magnitude and phase of every frame, inverse STFT.

    Args:
        mel: MelConfig.to_dict().
        dim, layers, expansion, kernel: size of the trunk.
        lookahead: future frames each block sees; kernel // 2 as in the paper if None.
    Source: Siuzdak 2023, arXiv:2306.00814.
    """

    kind = "vocos"

    def __init__(
        self,
        mel: dict[str, Any] | None = None,
        *,
        dim: int = 512,
        layers: int = 8,
        expansion: int = 3,
        kernel: int = 7,
        lookahead: int | None = None,
    ) -> None:
        super().__init__()
        self.mel = MelConfig() if mel is None else MelConfig.from_dict(dict(mel))
        ahead = kernel // 2 if lookahead is None else lookahead
        self.config = {
            "mel": self.mel.to_dict(),
            "dim": dim,
            "layers": layers,
            "expansion": expansion,
            "kernel": kernel,
            "lookahead": ahead,
        }
        self.trunk = ConvNeXt(self.mel.n_mels, dim, layers, kernel, ahead, expansion)
        self.head = nn.Linear(dim, self.mel.n_fft + 2)
        self.inverse = InverseSTFT(self.mel.n_fft, self.mel.hop, self.mel.padding, limit=100.0)

    def generate(self, batch: VocoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inverse(self.head(self.trunk(batch.mel.transpose(1, 2)))).squeeze(2), {}

    def delay(self, channels: int) -> int:
        return self.trunk.lookahead * self.mel.hop + self.mel.padding

    def initial(self, frames: Tensor) -> Any:
        return self.trunk.initial(len(frames), frames), self.inverse.initial(len(frames), frames)

    def step(self, frames: Tensor, position: int, length: int | None, caches: Any) -> tuple[Tensor, Any]:
        hidden, trunk = self.trunk.step(frames.transpose(1, 2), position, length, caches[0])
        late = Span(position, length).earlier(self.trunk.lookahead)
        audio, _, inverse = self.inverse.step(self.head(hidden), late, caches[1])
        return audio.squeeze(2).clamp(-1, 1), (trunk, inverse)
