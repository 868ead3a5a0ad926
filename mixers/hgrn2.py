"""HGRN2: gated linear attention whose keys are what the forget gates leave open."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.backend import Backend
from melstate.kernels.gla import gla
from melstate.mixers.mixer import Mixer, accumulator, split_heads, zeros
from melstate.mixers.norm import HeadNorm


class HGRN2State(NamedTuple):
    """memory (B, H, K, V) float32."""

    memory: Tensor


class HGRN2(Mixer):
    """q = silu(W_q x); e^g = lb + (1 - lb) sigmoid(W_f x); k = 1 - e^g; v = W_i x; y = W_o norm(gla(q, k, v, g)).

    Args:
        dim: width; values take it whole.
        heads: H.
        key_dim: per head; dim / (2 heads) by default.
        lower_bound: lb in [0, 1), the least a gate keeps; upper layers take larger ones (see `lower_bounds`).
        backend: see melstate.kernels.backend.
    Source: Qin et al. 2024, arXiv:2404.07904.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        key_dim: int | None = None,
        lower_bound: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if dim % heads or not 0 <= lower_bound < 1:
            raise ValueError(
                f"hgrn2: dim must be a multiple of heads and 0 <= lower_bound < 1, got {dim}, {heads}, {lower_bound:g}"
            )
        self.dim, self.heads, self.key_dim = dim, heads, key_dim or dim // (2 * heads)
        self.lower_bound, self.backend = lower_bound, backend
        keys = heads * self.key_dim
        self.widths = (keys, keys, dim)
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        self.norm = HeadNorm(dim // heads)
        self.out = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> HGRN2State:
        shape = batch, self.heads, self.key_dim, self.dim // self.heads
        return HGRN2State(zeros(self, *shape, dtype=accumulator(self)))

    def forward(
        self, x: Tensor, state: HGRN2State | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, HGRN2State]:
        q, gate, v = self.project(x).split(self.widths, dim=-1)
        q = F.silu(q)
        # 1 - e^g without the cancellation: (1 - lb)(1 - sigmoid) = (1 - lb) sigmoid(-·).
        k = (1 - self.lower_bound) * torch.sigmoid(-gate)
        decay = F.logsigmoid(gate) if self.lower_bound == 0 else torch.log1p(-k)
        q, k, v, decay = (split_heads(part, self.heads) for part in (q, k, v, decay))
        memory = None if state is None else state.memory
        y, memory = gla(q, k, v, decay, memory, lengths=lengths, backend=self.backend)
        return self.out(self.norm(y).flatten(2)), HGRN2State(memory)


def lower_bounds(layers: int) -> list[float]:
    """Evenly rising lower bounds for a stack: the first layer may forget at once, the last keeps most.

    Fixed where the paper learns them: their order is what matters there.
    """
    return [index / layers for index in range(layers)]
