"""Gated linear attention as a mixer."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.backend import Backend
from melstate.kernels.gla import gla
from melstate.mixers.mixer import Mixer, accumulator, split_heads, zeros
from melstate.mixers.norm import HeadNorm
from melstate.mixers.short_conv import ShortConv


class GLAState(NamedTuple):
    """memory (B, H, K, V) float32; conv (B, width - 1, channels), zero-wide without convolution."""

    memory: Tensor
    conv: Tensor


class GLA(Mixer):
    """y = W_o[RMSNorm_head(o) ⊙ silu(W_g x)], o = gla(W_q x, W_k x, W_v x, logsigmoid(W_2 W_1 x + b) / normalizer).

    Args:
        dim: width.
        heads: H.
        key_dim, value_dim: per head; by default dim / 2 and dim over all heads.
        gate_rank: inner width of the gate's projection.
        gate_normalizer: divides the log gate; larger remembers longer.
        conv: frames of the short causal convolution on q, k, v; 0 leaves it out.
        backend: see melstate.kernels.backend.
    Source: Yang et al. 2023, arXiv:2312.06635.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        key_dim: int | None = None,
        value_dim: int | None = None,
        gate_rank: int = 16,
        gate_normalizer: float = 16.0,
        conv: int = 4,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        key_dim, value_dim = key_dim or dim // max(2 * heads, 1), value_dim or dim // max(heads, 1)
        if not (heads > 0 and key_dim > 0 and value_dim > 0):
            raise ValueError(
                f"gla: heads, key_dim, value_dim must be positive, got {heads}, {key_dim}, {value_dim} for dim {dim}"
            )
        self.dim, self.heads, self.key_dim, self.value_dim = dim, heads, key_dim, value_dim
        self.gate_normalizer, self.backend = gate_normalizer, backend
        keys, values = heads * key_dim, heads * value_dim
        # One projection for everything read from x: fewer, larger products.
        self.widths = (2 * keys + values, values, gate_rank)
        self.project = nn.Linear(dim, sum(self.widths), bias=False)
        self.gate = nn.Linear(gate_rank, keys)
        self.conv = ShortConv(2 * keys + values, conv) if conv else None
        self.norm = HeadNorm(value_dim)
        self.out = nn.Linear(values, dim, bias=False)

    def init_state(self, batch: int) -> GLAState:
        memory = zeros(self, batch, self.heads, self.key_dim, self.value_dim, dtype=accumulator(self))
        return GLAState(memory, self.conv.init_state(batch) if self.conv else zeros(self, batch, 0, 0))

    def forward(
        self, x: Tensor, state: GLAState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, GLAState]:
        state = self.init_state(x.shape[0]) if state is None else state
        qkv, swish, low = self.project(x).split(self.widths, dim=-1)
        kept = state.conv
        if self.conv is not None:
            qkv, kept = self.conv(qkv, state.conv, lengths=lengths)
        keys = self.heads * self.key_dim
        q, k, v = (split_heads(part, self.heads) for part in qkv.split((keys, keys, qkv.shape[-1] - 2 * keys), dim=-1))
        decay = split_heads(F.logsigmoid(self.gate(low)) / self.gate_normalizer, self.heads)
        o, memory = gla(q, k, v, decay, state.memory, scale=self.key_dim**-0.5, lengths=lengths, backend=self.backend)
        o = self.norm(o) * F.silu(split_heads(swish, self.heads))
        return self.out(o.flatten(2)), GLAState(memory, kept)
