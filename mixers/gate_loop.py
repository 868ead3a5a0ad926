"""GateLoop in its simple form: a diagonal recurrence with content-dependent decay."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from melstate.kernels.backend import Backend
from melstate.kernels.scan import scan
from melstate.mixers.mixer import Mixer, accumulator, zeros


class GateLoopState(NamedTuple):
    """hidden (B, width) float32."""

    hidden: Tensor


class GateLoop(Mixer):
    """h_t = sigmoid(a_t) ⊙ h_{t-1} + k_t ⊙ v_t; y = W_o (q_t ⊙ h_t); a, k, v, q projections of x.

    Args:
        dim: width of input and output.
        width: recurrent channels; dim if None.
        backend: see melstate.kernels.backend.
    Source: Katsch 2023, arXiv:2311.01927, with real gates.
    """

    def __init__(self, dim: int, *, width: int | None = None, backend: Backend = "auto") -> None:
        super().__init__()
        width = width or dim
        self.dim, self.width, self.backend = dim, width, backend
        self.project = nn.Linear(dim, 4 * width, bias=False)
        # Memories from two frames to a thousand from the start, as for the RG-LRU.
        span = torch.exp(torch.empty(width).uniform_(0.7, 6.9))
        self.gate_bias = nn.Parameter(torch.logit(1 - 1 / span))
        self.out = nn.Linear(width, dim, bias=False)

    def init_state(self, batch: int) -> GateLoopState:
        return GateLoopState(zeros(self, batch, self.width, dtype=accumulator(self)))

    def forward(
        self, x: Tensor, state: GateLoopState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, GateLoopState]:
        a, k, v, q = self.project(x).chunk(4, dim=-1)
        # In bfloat16, under autocast, decays of long memories would round to 1.
        a = torch.sigmoid(a + self.gate_bias)
        hidden = None if state is None else state.hidden
        h, last = scan(a, (k * v).to(a.dtype), hidden, lengths=lengths, backend=self.backend)
        return self.out(q * h), GateLoopState(last)
