"""RWKV-6's time mixing: data-dependent token shift, data-dependent decay, and a bonus for the present frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.backend import Backend
from melstate.kernels.gla import gla
from melstate.kernels.lengths import check_lengths
from melstate.mixers.mixer import Mixer, accumulator, split_heads, zeros


class RWKV6State(NamedTuple):
    """memory (B, H, K, K) float32; last (B, dim), the input one frame ago."""

    memory: Tensor
    last: Tensor


class RWKV6(Mixer):
    """o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t; S_t = diag(e^{-e^w}) S_{t-1} + k_t v_t^T; y = W_o[norm(o) ⊙ silu(g)].

    Each of w, k, v, r, g reads its own mix of x_t and x_{t-1}, set by a low-rank projection of both.

    Args:
        dim: width.
        heads: H; keys and values have dim / H channels.
        mix_rank, decay_rank: inner widths of the low-rank projections.
        backend: see melstate.kernels.backend.
    Source: Peng et al. 2024, arXiv:2404.05892, section 4.
    """

    def __init__(
        self, dim: int, *, heads: int = 4, mix_rank: int = 32, decay_rank: int = 64, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"rwkv6: dim {dim} must be a multiple of heads {heads}")
        self.dim, self.heads, self.backend = dim, heads, backend
        ratio = torch.arange(dim) / dim
        self.shift = nn.Parameter(1 - ratio)
        self.shifts = nn.Parameter((1 - ratio).repeat(5, 1, 1))
        self.mix_in = nn.Parameter(torch.empty(dim, 5 * mix_rank).uniform_(-1e-2, 1e-2))
        self.mix_out = nn.Parameter(torch.empty(5, mix_rank, dim).uniform_(-1e-2, 1e-2))
        # e^-e^w from almost 1 to e^-2.7: the paper's spread over channels.
        self.decay = nn.Parameter(-6 + 7 * ratio**1.3)
        self.decay_in = nn.Parameter(torch.empty(dim, decay_rank).uniform_(-1e-2, 1e-2))
        self.decay_out = nn.Parameter(torch.empty(decay_rank, dim).uniform_(-1e-2, 1e-2))
        self.bonus = nn.Parameter(0.5 * (1 - ratio).view(heads, dim // heads))
        self.weights = nn.Parameter(torch.randn(4, dim, dim) * dim**-0.5)
        self.norm = nn.GroupNorm(heads, dim, eps=64e-5)
        self.out = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> RWKV6State:
        width = self.dim // self.heads
        memory = zeros(self, batch, self.heads, width, width, dtype=accumulator(self))
        return RWKV6State(memory, zeros(self, batch, self.dim))

    def forward(
        self, x: Tensor, state: RWKV6State | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, RWKV6State]:
        batch, time, dim = x.shape
        state = self.init_state(batch) if state is None else state
        frames = torch.cat([state.last.to(x.dtype)[:, None], x], dim=1)
        if lengths is None:
            last = frames[:, -1]
        else:
            check_lengths(lengths, batch, time, operation="rwkv6")
            last = frames.gather(1, lengths[:, None, None].expand(-1, 1, dim))[:, 0]
        flat = x.reshape(batch * time, dim)
        change = frames[:, :-1].reshape(batch * time, dim) - flat
        low = (
            torch.tanh((flat + change * self.shift) @ self.mix_in)
            .view(batch * time, 5, self.mix_out.shape[1])
            .transpose(0, 1)
        )
        mixed = flat + change * torch.baddbmm(self.shifts.to(low.dtype), low, self.mix_out.to(low.dtype))
        k, v, r, g = torch.bmm(mixed[1:], self.weights.to(mixed.dtype)).view(4, batch, time, dim)
        w = self.decay + torch.tanh(mixed[0] @ self.decay_in) @ self.decay_out
        decay = -torch.exp(w).view(batch, time, dim)
        r, k, v, decay = (split_heads(part, self.heads) for part in (r, k, v, decay))
        o, memory = gla(r, k, v, decay, state.memory, bonus=self.bonus, lengths=lengths, backend=self.backend)
        o = self.norm(o.reshape(batch * time, dim)).view(batch, time, dim)
        return self.out(o * F.silu(g)), RWKV6State(memory, last)
