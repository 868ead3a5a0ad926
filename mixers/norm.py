"""Root-mean-square normalisation without a mean, over the last axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5


class HeadNorm(nn.Module):
    """x / rms(x) ⊙ weight over the last axis, of size `dim`: a head's values, or a layer's width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPSILON)
