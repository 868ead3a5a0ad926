"""Continuous channels as a few levels each, without training: uniform steps between robust limits of the corpus.

Source: Bai et al. 2024, "dMel: Speech Tokenization made Simple" (arXiv:2407.15835), section 2.1, with limits for every
channel of its own and soft targets, so that the expected level of a perfect prediction is the value itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Quantiles of the corpus that become the lowest and the highest level. Little is heard of what lies below the first;
# what lies above the second is a vowel's loudest harmonic.
LOWEST, HIGHEST = 0.005, 0.9995


class Levels(nn.Module):
    """(…, channels) values ↔ levels 0..levels − 1.

    Args:
        channels: values a frame.
        levels: per channel, at least 2.
    """

    low: Tensor
    high: Tensor

    def __init__(self, channels: int, levels: int = 16) -> None:
        super().__init__()
        if channels < 1 or levels < 2:
            raise ValueError(f"levels: need channels >= 1 and levels >= 2, got {channels} and {levels}")
        self.channels, self.levels = channels, levels
        self.register_buffer("low", torch.full((channels,), -11.5))
        self.register_buffer("high", torch.full((channels,), 2.0))

    @torch.no_grad()
    def set_limits(self, low: Tensor, high: Tensor) -> None:
        """(channels,) values of the first and of the last level. Raises ValueError unless finite and low < high."""
        for name, value in (("low", low), ("high", high)):
            if value.shape != self.low.shape or not value.isfinite().all():
                raise ValueError(
                    f"levels: {name} must be {self.channels} finite values, got {tuple(value.shape)} {value.tolist()}"
                )
        if not (low < high).all():
            channel = int((low >= high).nonzero()[0])
            raise ValueError(
                f"levels: channel {channel} has limits {float(low[channel]):g}..{float(high[channel]):g}; "
                "a channel that never changes cannot be quantised"
            )
        self.low.copy_(low)
        self.high.copy_(high)

    def place(self, values: Tensor) -> Tensor:
        """Real-valued levels in 0..levels − 1; what lies outside the limits is clamped to them."""
        return ((values - self.low) / (self.high - self.low)).clamp(0, 1) * (self.levels - 1)

    def quantise(self, values: Tensor) -> Tensor:
        """The nearest levels, int64."""
        return self.place(values).round().long()

    def value(self, levels: Tensor, first: int = 0) -> Tensor:
        """What levels (…, n), whole or between two, of the n channels from `first` on stand for."""
        low, high = (limit[first : first + levels.shape[-1]] for limit in (self.low, self.high))
        return low + levels / (self.levels - 1) * (high - low)


def level_loss(logits: Tensor, place: Tensor) -> Tensor:
    """Cross-entropy with the two levels around `place`, each weighted by its nearness.

    Args:
        logits: (…, levels).
        place: (…) real-valued levels, as `Levels.place` gives them.
    Returns: (…) nats. Least where the expected level is `place` and no other level has weight.
    """
    below = place.floor().clamp(max=logits.shape[-1] - 2)
    share = place - below
    index = below.long().unsqueeze(-1)
    near = logits.gather(-1, torch.cat([index, index + 1], -1))
    return logits.logsumexp(-1) - torch.lerp(near[..., 0], near[..., 1], share)


def expected_level(probabilities: Tensor) -> Tensor:
    """(…, levels) → (…): the mean of the categorical."""
    return probabilities @ torch.arange(probabilities.shape[-1], dtype=probabilities.dtype, device=probabilities.device)


def tempered(logits: Tensor, temperature: Tensor, top_p: float) -> Tensor:
    """Probabilities to draw levels from.

    Args:
        logits: (channels, levels).
        temperature: (channels,) >= 0; 0 leaves the likeliest level alone.
        top_p: the least likely levels are dropped while the rest keeps this probability; 1 keeps all.
    Returns: (channels, levels), rows summing to 1.
    """
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature.clamp(min=1e-4)[:, None]
    probabilities = scaled.softmax(-1)
    if top_p >= 1:
        return probabilities
    ordered, index = probabilities.sort(-1, descending=True)
    kept = ordered * (ordered.cumsum(-1) - ordered < top_p)
    return F.normalize(torch.zeros_like(kept).scatter(-1, index, kept), p=1, dim=-1)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Levels (channels,) from probabilities (channels, levels) and uniform numbers (channels,) in [0, 1)."""
    total = probabilities.cumsum(-1)
    return (total <= (uniform * total[:, -1])[:, None]).sum(-1).clamp(max=probabilities.shape[-1] - 1)
