"""Symbols → frames: whole durations, and what each frame reads from its symbol."""

from __future__ import annotations

import torch
from torch import Tensor

POSITIONS = 3


def whole_durations(durations: Tensor, sounded: Tensor) -> Tensor:
    """Real durations → whole frames whose running total never strays more than half a frame.

    Args:
        durations: (N,) frames, >= 0 and finite.
        sounded: (N,) bool: symbols that get at least one frame.
    Returns: (N,) int64.
    """
    wished = torch.where(sounded, durations.double().clamp(min=1.0), durations.double())
    ends = (wished.cumsum(0) + 0.5).floor()
    return torch.diff(ends, prepend=ends.new_zeros(1)).long()


def path_symbols(durations: Tensor, frames: int) -> Tensor:
    """(B, N) durations → (B, frames) index of the symbol each frame belongs to; N past the end of a row."""
    ends = durations.cumsum(1).contiguous()
    times = torch.arange(frames, device=durations.device).expand(len(durations), -1).contiguous()
    return torch.searchsorted(ends, times, right=True)


def positions(durations: Tensor, path: Tensor) -> Tensor:
    """Where each frame stands inside its symbol: (i + ½)/d, 1 − (i + ½)/d, log d.

    Nothing here grows with the utterance, so an utterance longer than any in training looks familiar everywhere.

    Args:
        durations: (B, N).
        path: (B, T) as `path_symbols` gives it.
    Returns: (B, T, 3) float32, zeros past the end.
    """
    last = durations.shape[1] - 1
    symbol = path.clamp(max=last)
    starts = (durations.cumsum(1) - durations).gather(1, symbol)
    length = durations.gather(1, symbol).clamp(min=1)
    index = torch.arange(path.shape[1], device=path.device) - starts
    fraction = (index + 0.5) / length
    features = torch.stack([fraction, 1 - fraction, length.log()], -1)
    return features * (path <= last)[..., None]


def symbol_means(values: Tensor, durations: Tensor) -> Tensor:
    """(B, T) frame values → (B, N) mean over each symbol's frames; 0 for symbols without frames."""
    totals = torch.nn.functional.pad(values.double().cumsum(1), (1, 0))
    ends = durations.cumsum(1)
    sums = totals.gather(1, ends) - totals.gather(1, ends - durations)
    return (sums / durations.clamp(min=1)).float()
