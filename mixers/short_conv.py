"""Causal depthwise convolution over a few frames, with the last frames as state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.lengths import check_lengths
from melstate.mixers.mixer import Mixer


class ShortConv(Mixer):
    """y_t = b + Σ_j w_j ⊙ x_{t-width+1+j}, optionally through SiLU; the state is the bare frames.

    Args:
        dim: channels.
        width: frames seen, the present one included.
        silu: apply SiLU.
    """

    def __init__(self, dim: int, width: int = 4, *, bias: bool = False, silu: bool = True) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"short conv: width must be >= 2 frames, got {width}")
        self.dim, self.width, self.silu = dim, width, silu
        self.weight = nn.Parameter(torch.empty(dim, width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def init_state(self, batch: int) -> Tensor:
        """(B, width - 1, dim) zeros: silence before the start."""
        return self.weight.new_zeros(batch, self.width - 1, self.dim)

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, T, dim) → y (B, T, dim) and the last width - 1 real frames (B, width - 1, dim)."""
        batch, time, dim = x.shape
        if dim != self.dim:
            raise ValueError(f"short conv: built for {self.dim} channels, got x with {dim}")
        if state is None:
            state = x.new_zeros(batch, self.width - 1, dim)
        frames = torch.cat([state.to(x.dtype), x], dim=1)
        weight = self.weight.to(x.dtype)
        if time == 1:
            y = (frames * weight.t()).sum(1, keepdim=True)
        else:
            y = _depthwise(frames, weight) if time else x
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        if lengths is None:
            kept = frames[:, time:]
        else:
            check_lengths(lengths, batch, time, operation="short conv")
            index = lengths[:, None] + torch.arange(self.width - 1, device=x.device)
            kept = frames.gather(1, index[..., None].expand(-1, -1, dim))
        return F.silu(y) if self.silu else y, kept


def _depthwise(frames: Tensor, weight: Tensor) -> Tensor:
    """(B, T + width - 1, D), (D, width) → (B, T, D). As a channels-last image: no transposed copy on the CPU."""
    image = frames.transpose(1, 2).unsqueeze(2)
    out = F.conv2d(image, weight[:, None, None], groups=weight.shape[0])
    return out.squeeze(2).transpose(1, 2)
