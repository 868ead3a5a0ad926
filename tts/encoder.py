"""Symbols → encodings: bidirectional recurrent blocks over the whole sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from melstate.mixers.block import Bidirectional
from melstate.mixers.mixer import create
from melstate.tts.conv_block import ChannelDropout, ConvFeedForward


class Encoder(nn.Module):
    """Embedding, then blocks of a bidirectional mixer and a convolutional feed-forward, pre-normed and residual."""

    def __init__(
        self,
        symbols: int,
        dim: int,
        hidden: int,
        blocks: int,
        mixer: str,
        options: Mapping[str, Any],
        kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, dim)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(blocks))
        self.mixers = nn.ModuleList(
            Bidirectional(create(mixer, dim, **options), create(mixer, dim, **options)) for _ in range(blocks)
        )
        self.feed_forwards = nn.ModuleList(ConvFeedForward(dim, hidden, kernel, dropout) for _ in range(blocks))
        self.dropout = ChannelDropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """(B, N) ids, (B,) lengths → (B, N, dim), zeros beyond the lengths, which touch nothing within them."""
        inside = (torch.arange(phones.shape[1], device=phones.device) < lengths[:, None]).unsqueeze(-1)
        x = self.embedding(phones)
        for norm, mixer, feed_forward in zip(self.norms, self.mixers, self.feed_forwards, strict=True):
            x = x + self.dropout(mixer(norm(x), lengths=lengths)[0])
            x = feed_forward(x, inside)
        return self.norm(x) * inside
