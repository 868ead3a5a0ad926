"""The attention decoder: recurrent in its own tokens, attending to one window of the encoder's memory.

Positions count from the window's start, so a window in the third hour looks like one in the first minute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.lengths import valid_frames
from melstate.mixers.block import GLU
from melstate.mixers.mixer import create
from melstate.mixers.norm import HeadNorm


class Window(NamedTuple):
    """A stretch of memory ready to attend to.

    keys, values: (layers, B, H, W, dim / H). real: (B, W) bool, None if every frame is.
    """

    keys: Tensor
    values: Tensor
    real: Tensor | None


class DecoderState(NamedTuple):
    """One mixer state per layer."""

    layers: tuple[Any, ...]


def positions(frames: int, dim: int, like: Tensor) -> Tensor:
    """Sinusoids (frames, dim) of the position in the window. Source: Vaswani et al. 2017, section 3.5."""
    rates = torch.exp(torch.arange(0, dim, 2, device=like.device) * (-math.log(10000.0) / dim))
    angles = torch.arange(frames, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :dim].to(like.dtype)


class DecoderLayer(nn.Module):
    """x + mixer(norm x), x + attention(norm x, window), x + glu(norm x)."""

    def __init__(
        self,
        dim: int,
        memory_dim: int,
        heads: int,
        mixer: str,
        options: Mapping[str, Any],
        hidden: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norms = nn.ModuleList(HeadNorm(dim) for _ in range(3))
        self.mixer = create(mixer, dim, **options)
        self.query = nn.Linear(dim, dim, bias=False)
        self.memory = nn.Linear(memory_dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.glu = GLU(dim, hidden)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, U, dim) → what it reads, and the mean position (B, U) that it looks at, in [0, 1) of the window."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = (q @ keys.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        if real is not None:
            scores = scores.masked_fill(~real[:, None, None], float("-inf"))
        weights = scores.softmax(-1)
        place = torch.arange(keys.shape[-2], device=x.device, dtype=weights.dtype) / keys.shape[-2]
        focus = (weights.detach().mean(1) * place).sum(-1)
        read = F.dropout(weights, self.dropout, self.training).to(values.dtype) @ values
        return self.out(read.transpose(1, 2).flatten(2)), focus

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, real: Tensor | None, state: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Any]:
        mixed, state = self.mixer(self.norms[0](x), state, lengths=lengths)
        x = x + F.dropout(mixed, self.dropout, self.training)
        read, focus = self.attend(self.norms[1](x), keys, values, real)
        x = x + F.dropout(read, self.dropout, self.training)
        deep, _ = self.glu(self.norms[2](x), self.glu.init_state(x.shape[0]))
        return x + F.dropout(deep, self.dropout, self.training), focus, state


class Decoder(nn.Module):
    """Tokens so far and a window of memory → logits of the next token.

    Args:
        tokens: size of the vocabulary.
        memory_dim: the encoder's width.
        dim, layers, heads: width, depth, attention heads.
        mixer, mixer_options: what carries the tokens so far.
        hidden: the GLU's inner width.
        dropout: on every branch, the attention weights and the embeddings.
    """

    def __init__(
        self,
        tokens: int,
        memory_dim: int,
        dim: int = 192,
        layers: int = 2,
        heads: int = 4,
        mixer: str = "gla",
        mixer_options: Mapping[str, Any] | None = None,
        hidden: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"decoder: dim {dim} must be a multiple of heads {heads}")
        self.tokens, self.dropout, self.memory_dim = tokens, dropout, memory_dim
        self.embedding = nn.Embedding(tokens, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.layers = nn.ModuleList(
            DecoderLayer(dim, memory_dim, heads, mixer, mixer_options or {}, hidden, dropout) for _ in range(layers)
        )
        self.norm = HeadNorm(dim)
        self.out = nn.Linear(dim, tokens)

    def init_state(self, batch: int) -> DecoderState:
        return DecoderState(tuple(layer.mixer.init_state(batch) for layer in self._layers()))

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def window(self, memory: Tensor, lengths: Tensor | None = None) -> Window:
        """Keys and values of memory (B, W, memory_dim), to be computed once per window. W >= 1."""
        frames = memory.shape[1]
        placed = memory + positions(frames, self.memory_dim, memory)
        keys, values = [], []
        for layer in self._layers():
            key, value = layer.memory(placed).unflatten(-1, (2, layer.heads, -1)).permute(2, 0, 3, 1, 4)
            keys.append(key)
            values.append(value)
        # A row without any frame must attend to something: it sees its padding.
        real = None if lengths is None else valid_frames(lengths.clamp(min=1), frames)
        return Window(torch.stack(keys), torch.stack(values), real)

    def forward(
        self, tokens: Tensor, window: Window, state: DecoderState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Args:
            tokens: (B, U) ids. lengths: (B,) real ones.
        Returns: logits (B, U, V) of the token after each; the attention's mean position (B, U) in [0, 1) of the
            window, over layers and heads; the new state.
        """
        state = self.init_state(tokens.shape[0]) if state is None else state
        x = F.dropout(self.embedding(tokens), self.dropout, self.training)
        states, focuses = [], []
        for layer, keys, values, before in zip(self.layers, window.keys, window.values, state.layers, strict=True):
            x, focus, after = layer(x, keys, values, window.real, before, lengths)
            states.append(after)
            focuses.append(focus)
        return self.out(self.norm(x)), torch.stack(focuses).mean(0), DecoderState(tuple(states))
