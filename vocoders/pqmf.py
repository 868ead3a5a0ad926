"""Pseudo quadrature mirror filters: a signal as K critically sampled bands, and back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.vocoders.layers import Layer, Span, bordered


def prototype(taps: int, cutoff: float, beta: float) -> Tensor:
    """Low-pass of taps + 1 samples: a sinc cut by a Kaiser window. cutoff as a fraction of Nyquist; float64."""
    n = torch.arange(taps + 1, dtype=torch.float64) - taps / 2
    ideal = cutoff * torch.sinc(cutoff * n)
    return ideal * torch.kaiser_window(taps + 1, periodic=False, beta=beta, dtype=torch.float64)


class PQMF(Layer):
    """Synthesis as a layer: (B, T, bands) → (B, T * bands, 1). `analysis` is its inverse, nearly.

    Args:
        bands: K.
        taps: order of the prototype, even.
        cutoff: of the prototype, a fraction of Nyquist.
        beta: of its Kaiser window.
    Source: Nguyen 1994, "Near-perfect-reconstruction pseudo-QMF banks"; the figures are those of Multi-band MelGAN
    (Yang et al. 2020, arXiv:2005.05106) as commonly trained.
    """

    filters: Tensor
    kernel: Tensor

    def __init__(self, bands: int = 4, taps: int = 62, cutoff: float = 0.142, beta: float = 9.0) -> None:
        super().__init__()
        if taps % 2:
            raise ValueError(f"PQMF: taps must be even, got {taps}")
        self.bands, self.taps = bands, taps
        low = prototype(taps, cutoff, beta)
        n = torch.arange(taps + 1, dtype=torch.float64) - taps / 2
        k = torch.arange(bands, dtype=torch.float64)[:, None]
        filters = 2 * low * torch.cos((2 * k + 1) * math.pi / (2 * bands) * n + (-1) ** k * math.pi / 4)
        # Analysis correlates with the filters, synthesis convolves: the two together have linear phase.
        self.register_buffer("filters", filters.float(), persistent=False)
        # Band sample m adds bands * filter[j] at output bands * m - taps / 2 + j. Gathered by output row and phase,
        # that is a convolution over band samples.
        self.reach = -(-(taps // 2) // bands)
        kernel = torch.zeros(bands, bands, 2 * self.reach + 1, dtype=torch.float64)
        for phase in range(bands):
            for offset in range(-self.reach, self.reach + 1):
                tap = phase - bands * offset + taps // 2
                if 0 <= tap <= taps:
                    kernel[phase, :, offset + self.reach] = bands * filters[:, tap]
        self.register_buffer("kernel", kernel.float(), persistent=False)

    def analysis(self, audio: Tensor) -> Tensor:
        """(B, samples), a multiple of bands → (B, samples / bands, bands)."""
        padded = F.pad(audio.unsqueeze(1), (self.taps // 2, self.taps // 2))
        return F.conv1d(padded, self.filters.unsqueeze(1), stride=self.bands).transpose(1, 2)

    def _valid(self, x: Tensor) -> Tensor:
        y = F.conv1d(x.transpose(1, 2), self.kernel).transpose(1, 2)
        return y.reshape(len(x), -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self._valid(F.pad(x, (0, 0, self.reach, self.reach)))

    def place(self, span: Span) -> Span:
        return span.earlier(self.reach).times(self.bands)

    def initial(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, 2 * self.reach, self.bands, dtype=self.kernel.dtype)

    def step(self, x: Tensor, span: Span, cache: Tensor) -> tuple[Tensor, Span, Tensor]:
        x = torch.cat([cache, x.to(cache.dtype)], dim=1)
        seen = bordered(x, span.earlier(2 * self.reach), "zero")
        return self._valid(seen), self.place(span), x[:, x.shape[1] - 2 * self.reach :]
