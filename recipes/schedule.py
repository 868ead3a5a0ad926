"""Optimisers and their learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, warmup: int, max_steps: int, floor: float = 0.01) -> LambdaLR:
    """Linear warm-up over `warmup` steps, half a cosine down to `floor` × the peak at `max_steps`, constant after."""
    if not 0 <= warmup < max_steps:
        raise ValueError(f"warmup must be in 0..max_steps-1, got warmup={warmup}, max_steps={max_steps}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (max_steps - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def adamw(
    model: nn.Module,
    *,
    lr: float,
    betas: Sequence[float],
    weight_decay: float,
    warmup: int,
    max_steps: int,
    floor: float,
    plain: Sequence[str] = ("embedding",),
) -> dict[str, Any]:
    """AdamW with `warmup_cosine`, as Lightning takes them.

    Args:
        weight_decay: of matrices alone: not of biases, norms, or parameters with a part of `plain` in their names.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        bare = parameter.ndim <= 1 or any(part in name for part in plain)
        (others if bare else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay)
    scheduler = warmup_cosine(optimizer, warmup, max_steps, floor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
