"""Depthwise-convolution feed-forward: what every block of the acoustic model has beside its mixer.

    x + W2 (silu(a) · b),   (a, b) = W1 norm(depthwise(x))

The depthwise convolution sees either both sides (zeros outside the row) or the past alone (its last inputs are the
state).
Source: Liu et al. 2022 (ConvNeXt, arXiv:2201.03545), figure 4, with the GLU of Shazeer 2020 (arXiv:2002.05202).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelDropout(nn.Module):
    """Drops whole channels of (B, T, D), the same for all T: a hundredth of the random numbers of plain dropout."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], 1, x.shape[2], device=x.device) >= self.p
        return x * (keep / (1 - self.p)).to(x.dtype)


class ConvFeedForward(nn.Module):
    """The block above; x is (B, T, dim) throughout.

    Args:
        dim: width.
        hidden: width inside the GLU.
        kernel: taps of the depthwise convolution, odd.
        dropout: probability of dropping a channel of the branch.
    """

    def __init__(self, dim: int, hidden: int, kernel: int = 7, dropout: float = 0.0) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd to have a middle, got {kernel}")
        self.kernel = kernel
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * hidden)
        self.project = nn.Linear(hidden, dim)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Both sides. inside: (B, T, 1) 1 on real frames, 0 elsewhere: what is read as zero."""
        half = self.kernel // 2
        return x + self._branch(F.pad(x * inside, (0, 0, half, half)))

    def causal(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The past alone. state: (B, kernel − 1, dim) the inputs before x, zeros if None. Returns y and the next."""
        if state is None:
            state = x.new_zeros(x.shape[0], self.kernel - 1, x.shape[2])
        padded = torch.cat([state, x], 1)
        return x + self._branch(padded), padded[:, padded.shape[1] - self.kernel + 1 :]

    def _branch(self, padded: Tensor) -> Tensor:
        # A 2-D convolution over one row takes (B, T, D) memory as it lies; the 1-D one transposes it back and forth.
        image = padded.transpose(1, 2).unsqueeze(2)
        y = F.conv2d(image, self.depthwise.weight.unsqueeze(2), self.depthwise.bias, groups=image.shape[1])
        a, b = self.expand(self.norm(y.squeeze(2).transpose(1, 2))).chunk(2, -1)
        return self.dropout(self.project(F.silu(a) * b))
