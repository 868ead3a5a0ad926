"""Learning-rate schedules."""

from __future__ import annotations

import math

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
