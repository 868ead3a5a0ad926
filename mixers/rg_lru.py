"""The real-gated linear recurrent unit of Griffin, with its convolution and output gate."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.backend import Backend
from melstate.kernels.scan import scan
from melstate.mixers.mixer import Mixer, accumulator, zeros
from melstate.mixers.short_conv import ShortConv

# Exponent of the recurrence gate: log a = -C r softplus(Λ).
C = 8.0


class RGLRUState(NamedTuple):
    """hidden (B, width) float32; conv (B, frames - 1, width)."""

    hidden: Tensor
    conv: Tensor


class RGLRU(Mixer):
    """y = W_out[RGLRU(conv(W_x x)) ⊙ gelu(W_y x)]; r, i = sigmoid(block-diagonal W x); log a = -8 r softplus(Λ);
    h = a h + sqrt(1 - a²) (i ⊙ x).

    Args:
        dim: width of input and output.
        width: recurrent channels; dim if None.
        heads: blocks of the gates' block-diagonal projections.
        conv: frames of the short causal convolution.
        backend: see melstate.kernels.backend.
    Source: De et al. 2024, arXiv:2402.19427, section 2.4.
    """

    def __init__(
        self, dim: int, *, width: int | None = None, heads: int = 4, conv: int = 4, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        width = width or dim
        if width % heads:
            raise ValueError(f"rg_lru: width {width} must be a multiple of heads {heads}")
        self.dim, self.width, self.heads, self.backend = dim, width, heads, backend
        self.project = nn.Linear(dim, 2 * width)
        self.conv = ShortConv(width, conv, bias=True, silu=False)
        block = width // heads
        self.gates = nn.Parameter(torch.randn(heads, block, 2 * block) * block**-0.5)
        self.gate_bias = nn.Parameter(torch.zeros(heads, 1, 2 * block))
        # Λ such that a = exp(-C softplus(Λ)) lies in [0.9, 0.999] where the gate is open.
        decay = torch.empty(width).uniform_(0.9, 0.999)
        self.decay = nn.Parameter(torch.log(torch.expm1(-torch.log(decay) / C)))
        self.out = nn.Linear(width, dim)

    def init_state(self, batch: int) -> RGLRUState:
        return RGLRUState(zeros(self, batch, self.width, dtype=accumulator(self)), self.conv.init_state(batch))

    def forward(
        self, x: Tensor, state: RGLRUState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, RGLRUState]:
        state = self.init_state(x.shape[0]) if state is None else state
        u, swish = self.project(x).chunk(2, dim=-1)
        u, kept = self.conv(u, state.conv, lengths=lengths)
        batch, time, _ = u.shape
        blocks = u.reshape(batch * time, self.heads, self.width // self.heads).transpose(0, 1)
        gates = torch.sigmoid(torch.baddbmm(self.gate_bias.to(u.dtype), blocks, self.gates.to(u.dtype)))
        r, i = (g.transpose(0, 1).reshape(batch, time, self.width) for g in gates.chunk(2, dim=-1))
        log_a = (-C * F.softplus(self.decay)) * r
        # 1 - a² through expm1: exact near a = 1. The floor bounds the square root's slope there.
        gain = torch.sqrt((-torch.expm1(2 * log_a)).clamp(min=1e-6))
        a = torch.exp(log_a)
        hidden, last = scan(a, (gain * i * u).to(a.dtype), state.hidden, lengths=lengths, backend=self.backend)
        return self.out(hidden * F.gelu(swish)), RGLRUState(last, kept)
