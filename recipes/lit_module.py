"""What most trainings here share: one model, a weighted sum of its losses, AdamW, warm-up and a cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from melstate.recipes.schedule import adamw


class LitModule(L.LightningModule):
    """AdamW on the weighted sum of the model's losses.

    Args:
        model: what learns.
        loss_weights: by loss name, beside the class' LOSS_WEIGHTS, which it overrides.
        lr: peak learning rate.
        betas, weight_decay: of AdamW; weight decay is for matrices alone, not for biases, norms or what PLAIN names.
        warmup, max_steps, floor: of the cosine schedule, in optimiser steps and as a fraction of the peak.
    Raises: ValueError: weights of losses that the model does not have.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]]
    PLAIN: ClassVar[Sequence[str]] = ("embedding",)  # parts of the names of matrices without weight decay

    def __init__(
        self,
        model: nn.Module,
        loss_weights: Mapping[str, float] | None = None,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        warmup: int = 500,
        max_steps: int = 10000,
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        unknown = set(loss_weights or ()) - set(self.LOSS_WEIGHTS)
        if unknown:
            known = sorted(self.LOSS_WEIGHTS)
            raise ValueError(f"loss_weights: {sorted(unknown)} are not losses; the losses are {known}")
        self.model: Any = model
        self.loss_weights = {**self.LOSS_WEIGHTS, **(loss_weights or {})}
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.warmup, self.max_steps, self.floor = warmup, max_steps, floor

    def configure_optimizers(self) -> Any:
        return adamw(
            self.model,
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            max_steps=self.max_steps,
            floor=self.floor,
            plain=self.PLAIN,
        )

    def weigh(self, part: str, losses: Mapping[str, Tensor], rows: int) -> Tensor:
        """The sum of the losses, each logged, as those of `part` (train or val), for a batch of `rows`."""
        total = torch.stack([self.loss_weights[name] * value for name, value in losses.items()]).sum()
        self.log_dict({f"{part}/{name}": value for name, value in losses.items()}, batch_size=rows)
        self.log(f"{part}/loss", total, batch_size=rows, prog_bar=part == "train")
        return total
