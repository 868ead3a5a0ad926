"""Connectionist temporal classification: loss, best path, prefix beam search, forced alignment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.asr.tokens import BLANK


def ctc_loss(log_probs: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """Mean negative log-likelihood per target token over the batch; rows too short for their text count nothing.

    Args:
        log_probs: (B, S, V) float32. frames: (B,) real ones.
        targets: (B, U) padded with anything. lengths: (B,) real ones, 0 for rows that say nothing.
    """
    losses = F.ctc_loss(
        log_probs.transpose(0, 1), targets, frames, lengths, blank=BLANK, reduction="none", zero_infinity=True
    )
    return losses.sum() / lengths.clamp(min=1).sum()


def best_path(log_probs: Tensor) -> list[int]:
    """The tokens of the likeliest path of (S, V): repeats merged, blanks left out."""
    return [token for token in torch.unique_consecutive(log_probs.argmax(-1)).tolist() if token != BLANK]
