"""Fundamental frequency and voicing estimated from a log-mel."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.vocoders.convnext import ConvNeXt


class PitchLogits(NamedTuple):
    """Attributes: bins: (B, T, bins) logits of log-spaced F0 bins; voicing: (B, T) logit of being voiced."""

    bins: Tensor
    voicing: Tensor


class PitchEstimator(nn.Module):
    """ConvNeXt over mel frames; classifies log-spaced F0 bins and refines by the mean around the likeliest one.

    Args:
        n_mels: bands of the (normalised) mel.
        dim, layers, kernel, lookahead: of the trunk.
        bins, low, high: F0 grid, Hz.
    Source: the decoding of CREPE (Kim et al. 2018, arXiv:1802.06182).
    """

    centres: Tensor

    def __init__(
        self, n_mels: int, dim: int, layers: int, kernel: int, lookahead: int, bins: int, low: float, high: float
    ) -> None:
        super().__init__()
        if not 0 < low < high:
            raise ValueError(f"pitch range needs 0 < low < high, got {low:g}..{high:g} Hz")
        self.trunk = ConvNeXt(n_mels, dim, layers, kernel, lookahead)
        self.head = nn.Linear(dim, bins + 1)
        self.register_buffer("centres", torch.linspace(math.log(low), math.log(high), bins), persistent=False)

    def forward(self, mel: Tensor) -> PitchLogits:
        """(B, T, n_mels) → logits."""
        return self.logits(self.trunk(mel))

    def logits(self, hidden: Tensor) -> PitchLogits:
        """(B, T, dim) of the trunk → logits."""
        scores = self.head(hidden).float()
        return PitchLogits(scores[..., :-1], scores[..., -1])

    def log_f0(self, bins: Tensor) -> Tensor:
        """Logits (B, T, bins) → (B, T) log Hz: softmax mean over the likeliest bin and its three neighbours a side."""
        best = bins.argmax(-1, keepdim=True)
        near = (torch.arange(bins.shape[-1], device=bins.device) - best).abs() <= 3
        # Not a matrix product: autocast would round log Hz to bf16, which is 2 % of pitch.
        return (bins.masked_fill(~near, -torch.inf).softmax(-1) * self.centres).sum(-1)

    def decode(self, logits: PitchLogits) -> Tensor:
        """(B, T) Hz, 0 where unvoiced is likelier."""
        return torch.where(logits.voicing > 0, self.log_f0(logits.bins).exp(), 0.0)

    def losses(self, logits: PitchLogits, f0: Tensor) -> dict[str, Tensor]:
        """Cross-entropy to a Gaussian one bin wide around the target, log-F0 L1 and voicing cross-entropy.

        Args:
            f0: (B, T) Hz, 0 = unvoiced.
        """
        voiced = (f0 > 0).float()
        count = voiced.sum().clamp(min=1)
        target = torch.log(f0.clamp(min=1.0))
        step = self.centres[1] - self.centres[0]
        # A target outside the grid is trained towards its nearest end.
        inside = target.clamp(self.centres[0], self.centres[-1])
        soft = torch.softmax(-0.5 * ((inside[..., None] - self.centres) / step).square(), dim=-1)
        entropy = -(soft * logits.bins.log_softmax(-1)).sum(-1)
        return {
            "f0_bins": (entropy * voiced).sum() / count,
            "f0_l1": ((self.log_f0(logits.bins) - inside).abs() * voiced).sum() / count,
            "voicing": F.binary_cross_entropy_with_logits(logits.voicing, voiced),
        }
