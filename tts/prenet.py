"""What an autoregressive model reads of its own past."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prenet(nn.Module):
    """What the model reads of its own past: two ReLU layers without bias, with dropout also in synthesis.

    Source: Shen et al. 2018 (Tacotron 2, arXiv:1712.05884), section 2.2.
    """

    def __init__(self, bands: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(bands, dim, bias=False), nn.Linear(dim, dim, bias=False)])
        self.dropout = dropout

    def forward(self, x: Tensor, *, dropout: bool, generator: torch.Generator | None = None) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
            if dropout and self.dropout:
                device = x.device if generator is None else generator.device
                keep = torch.rand(x.shape, generator=generator, device=device) >= self.dropout
                x = x * keep.to(x.device) / (1 - self.dropout)
        return x
