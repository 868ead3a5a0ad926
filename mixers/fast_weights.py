"""Decaying fast weights: a matrix state that forgets along its keys and along its values."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.backend import Backend
from melstate.kernels.gla import gla
from melstate.mixers.mixer import Mixer, accumulator, split_heads, zeros


class FastWeightsState(NamedTuple):
    """memory (B, H, K, V) float32."""

    memory: Tensor


class DecayingFastWeights(Mixer):
    """S_t = S_{t-1} ⊙ (f_t f'_t^T) + k_t v_t^T; y = W_o [S_t^T q_t]; f, f' = sigmoid(W x + b). No scale, no norm.

    Args:
        dim: width.
        heads: H.
        key_dim, value_dim: per head; by default dim / (2 heads) and dim / heads.
        memory: n; the gates' biases start such that they are uniform in [1/n, 1 - 1/n].
        backend: see melstate.kernels.backend.
    Source: Mao 2022, arXiv:2210.04243.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        key_dim: int | None = None,
        value_dim: int | None = None,
        memory: float = 64.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        key_dim, value_dim = key_dim or dim // max(2 * heads, 1), value_dim or dim // max(heads, 1)
        if not (heads > 0 and key_dim > 0 and value_dim > 0) or memory <= 2:
            raise ValueError(
                "fast weights: heads, key_dim, value_dim must be positive and memory > 2, "
                f"got {heads}, {key_dim}, {value_dim}, {memory:g} for dim {dim}"
            )
        self.dim, self.heads, self.key_dim, self.value_dim, self.backend = dim, heads, key_dim, value_dim, backend
        keys, values = heads * key_dim, heads * value_dim
        self.widths = (keys, keys, values, keys, values)
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        start = torch.empty(keys + values).uniform_(1 / memory, 1 - 1 / memory)
        self.gate_bias = nn.Parameter(torch.logit(start))
        self.out = nn.Linear(values, dim, bias=False)

    def init_state(self, batch: int) -> FastWeightsState:
        return FastWeightsState(zeros(self, batch, self.heads, self.key_dim, self.value_dim, dtype=accumulator(self)))

    def forward(
        self, x: Tensor, state: FastWeightsState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, FastWeightsState]:
        q, k, v, f, h = self.project(x).split(self.widths, dim=-1)
        key_bias, value_bias = self.gate_bias.split((self.widths[3], self.widths[4]))
        f, h = F.logsigmoid(f + key_bias), F.logsigmoid(h + value_bias)
        q, k, v, f, h = (split_heads(part, self.heads) for part in (q, k, v, f, h))
        y, memory = gla(
            q, k, v, f, None if state is None else state.memory,
            value_log_decay=h, lengths=lengths, backend=self.backend,
        )  # fmt: skip
        return self.out(y.flatten(2)), FastWeightsState(memory)
