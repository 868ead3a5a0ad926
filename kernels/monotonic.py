"""Monotonic alignment search: the best way to spend every frame on a symbol, in order, skipping none.

Frame 1 belongs to symbol 1, the last frame to the last symbol, and from one frame to the next the path stays or moves
to the following symbol:

    best[t, n] = score[t, n] + max(best[t-1, n], best[t-1, n-1])

Source: Kim et al. 2020 (Glow-TTS, arXiv:2005.11129), algorithm 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def monotonic_alignment_reference(scores: Tensor) -> Tensor:
    """The definition, for one utterance, in float64 and by the letter; slow.

    Args:
        scores: (T, N) log-score of frame t under symbol n, T >= N >= 1.
    Returns: (N,) int64 frames per symbol of a best path; on ties the earlier symbol keeps the frame.
    """
    frames, symbols = scores.shape
    score = scores.double().tolist()
    best = [[-float("inf")] * symbols for _ in range(frames)]
    best[0][0] = score[0][0]
    for t in range(1, frames):
        for n in range(symbols):
            stay = best[t - 1][n]
            move = best[t - 1][n - 1] if n else -float("inf")
            best[t][n] = score[t][n] + max(stay, move)
    durations = [0] * symbols
    n = symbols - 1
    for t in range(frames - 1, -1, -1):
        durations[n] += 1
        if t and n and (n == t or best[t - 1][n - 1] > best[t - 1][n]):
            n -= 1
    return torch.tensor(durations)


def monotonic_alignment(scores: Tensor, frames: Tensor, symbols: Tensor) -> Tensor:
    """Monotonic alignment search over a padded batch: one vector operation a frame, on the CPU.

    Args:
        scores: (B, T, N) log-score of frame t under symbol n; what lies beyond the lengths is not read.
        frames: (B,) valid frames.
        symbols: (B,) valid symbols, at least 1 and at most `frames`.
    Returns: (B, N) int64 on the device of `scores`: frames per symbol, each at least 1 up to `symbols`, 0 beyond, rows
        summing to `frames`. On ties the earlier symbol keeps the frame.
    Raises: ValueError: lengths out of range, or a score within the lengths that is not finite.
    """
    batch, total, width = scores.shape
    count, height = symbols.cpu().numpy().astype(np.int64), frames.cpu().numpy().astype(np.int64)
    if count.shape != (batch,) or height.shape != (batch,):
        raise ValueError(f"lengths must be ({batch},), got frames {height.shape} and symbols {count.shape}")
    for row in range(batch):
        if not (1 <= count[row] <= width and height[row] <= total):
            raise ValueError(
                f"row {row}: {height[row]} frames, {count[row]} symbols do not fit scores of {total} × {width}"
            )
        if height[row] < count[row]:
            raise ValueError(f"row {row}: {height[row]} frames cannot give each of {count[row]} symbols one")
    score = scores.detach().double().cpu().numpy().transpose(1, 0, 2)
    valid = (np.arange(total)[:, None, None] < height[:, None]) & (np.arange(width) < count[:, None])
    if not np.isfinite(score[valid]).all():
        row = int(np.argwhere(~np.isfinite(score) & valid)[0][1])
        raise ValueError(f"row {row}: scores are not finite; the aligner has diverged or its input holds NaN")
    score = np.where(valid, score, 0.0)

    # A leading column of -inf stands for "before the first symbol", so that moving needs no special case.
    best = np.full((batch, width + 1), -np.inf)
    best[:, 1] = score[0, :, 0]
    moved = np.zeros((total, batch, width + 1), dtype=bool)
    for t in range(1, total):
        np.greater(best[:, :-1], best[:, 1:], out=moved[t, :, 1:])
        best[:, 1:] = np.where(moved[t, :, 1:], best[:, :-1], best[:, 1:]) + score[t]
    durations = np.zeros((batch, width), dtype=np.int64)
    rows, at = np.arange(batch), count - 1
    for t in range(total - 1, -1, -1):
        inside = t < height
        durations[rows, at] += inside
        at = at - (inside & moved[t, rows, at + 1])
    return torch.from_numpy(durations).to(scores.device)
