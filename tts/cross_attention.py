"""Position-aware cross-attention: where in the text speech has come to, from what was heard and where it was before.

Two attentions share the work. The first compares what was spoken with the text and yields an expected place, a mixture
of place embeddings. A recurrent block carries places along decoder time: it knows where speech was, and settles which
of two like-sounding stretches is meant. What it says is again a place, by which the second attention reads the text.

    A = softmax(q kᵀ/√d);   x = A P;   y = x + W_y block(W_x x + W_h h);   W = softmax(β y Pᵀ);   out = W_o W v

Source: Lemerle et al. 2024, Lina-Speech (arXiv:2410.23320), with the recurrent block reading what was spoken as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from melstate.mixers.block import Block
from melstate.mixers.mixer import create
from melstate.mixers.norm import HeadNorm

NOWHERE = -1e9
FASTEST, SLOWEST = 1.5, 2e-3  # radians a symbol of the place embedding's frequencies


class Text(NamedTuple):
    """A text ready to be read: everything that does not change while it is spoken.

    keys (B, N, key_dim), values (B, N, dim), places (B, N, place_dim), inside (B, N) bool.
    """

    keys: Tensor
    values: Tensor
    places: Tensor
    inside: Tensor

    def stretch(self, start: int, stop: int) -> Text:
        """Symbols start..stop alone."""
        return Text(*(part[:, start:stop] for part in self))


class Attended(NamedTuple):
    """read (B, T, dim); weights (B, T, N); content, position (B, T, N): logits of the two attentions, NOWHERE beyond
    the text. `content` keeps to the allowed symbols, `position` tells where attention would go if all were allowed."""

    read: Tensor
    weights: Tensor
    content: Tensor
    position: Tensor


def places(index: Tensor, dim: int) -> Tensor:
    """(…) symbol positions → (…, dim) unit vectors whose products tell distances and nothing else."""
    rates = torch.logspace(math.log10(FASTEST), math.log10(SLOWEST), dim // 2, device=index.device)
    angles = index.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], -1) * (dim // 2) ** -0.5


class PositionAwareAttention(nn.Module):
    """See the module's docstring.

    Args:
        dim: width of the decoder.
        text_dim: width of the text's encodings.
        key_dim: width in which speech and text are compared.
        place_dim: width of the place embedding, even.
        path_dim: width of the recurrent block.
        mixer, options: of the recurrent block; its state must not grow.
    """

    def __init__(
        self,
        dim: int,
        text_dim: int,
        key_dim: int,
        place_dim: int,
        path_dim: int,
        mixer: str,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        if place_dim % 2:
            raise ValueError(f"place_dim must be even, got {place_dim}")
        self.place_dim = place_dim
        self.norm = HeadNorm(dim)
        self.query = nn.Linear(dim, key_dim)
        self.text_norm = HeadNorm(text_dim)
        self.key = nn.Linear(text_dim, key_dim)
        self.value = nn.Linear(text_dim, dim)
        self.from_place = nn.Linear(place_dim, path_dim)
        self.from_speech = nn.Linear(dim, path_dim, bias=False)
        self.path = Block(create(mixer, path_dim, **options), hidden=0)
        self.to_place = nn.Linear(path_dim, place_dim)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        self.out = nn.Linear(dim, dim)

    def prepare(self, encoded: Tensor, inside: Tensor, offset: Tensor | int = 0) -> Text:
        """Encodings (B, N, text_dim) → what `forward` reads.

        offset: (B,) or 0, added to all places: training varies it, so that far places are no strangers.
        """
        index = torch.arange(encoded.shape[1], device=encoded.device).expand(len(encoded), -1)
        index = index + (offset[:, None] if isinstance(offset, Tensor) else offset)
        normed = self.text_norm(encoded)
        return Text(self.key(normed), self.value(normed), places(index, self.place_dim), inside)

    def forward(
        self, speech: Tensor, text: Text, state: Any = None, *, allowed: Tensor | None = None
    ) -> tuple[Attended, Any]:
        """Reads the text for every step of speech.

        Args:
            speech: (B, T, dim).
            state: of the recurrent block, as the call before returned it.
            allowed: (B, T, N) bool: symbols that may be attended to; all if None.
        Returns: what was read, and the state after.
        """
        inside = text.inside[:, None]
        allowed = inside if allowed is None else inside & allowed
        speech = self.norm(speech)
        scale = self.query.out_features**-0.5
        content = _product(self.query(speech) * scale, text.keys.transpose(1, 2)).masked_fill(~allowed, NOWHERE)
        expected = _product(content.softmax(-1), text.places)
        path, state = self.path(self.from_place(expected) + self.from_speech(speech), state)
        place = (expected + self.to_place(path)) * self.log_sharpness.exp()
        position = _product(place, text.places.transpose(1, 2)).masked_fill(~inside, NOWHERE)
        weights = position.masked_fill(~allowed, NOWHERE).softmax(-1)
        read = self.out(torch.bmm(weights.to(text.values.dtype), text.values))
        return Attended(read, weights, content, position), state


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product in at least float32, also under autocast: a place must be told to a part of a symbol."""
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return torch.bmm(a.to(wide), b.to(wide))
