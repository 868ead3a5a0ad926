"""Training of the aligner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.recipes.data.statistics import mel_statistics
from melstate.recipes.pictures import log_heat_map
from melstate.recipes.schedule import warmup_cosine
from melstate.tts.acoustic import Batch
from melstate.tts.aligner import Aligner
from melstate.tts.length import path_symbols


class LitAligner(L.LightningModule):
    """Adam on forward-sum; binarisation joins after `binarise_after` steps.

    Args:
        model: the aligner.
        lr: peak learning rate.
        warmup, max_steps: of the cosine schedule, in optimiser steps.
        binarisation: weight of the binarisation loss.
        binarise_after: steps without it, while paths form.
        images: validation utterances drawn at each validation.
    """

    def __init__(
        self,
        model: Aligner,
        lr: float = 1e-3,
        warmup: int = 100,
        max_steps: int = 2400,
        binarisation: float = 0.3,
        binarise_after: int = 200,
        images: int = 2,
    ) -> None:
        super().__init__()
        self.model = model
        self.lr, self.warmup, self.max_steps = lr, warmup, max_steps
        self.binarisation, self.binarise_after, self.images = binarisation, binarise_after, images

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Normalise mels by the training clips; called once, before the first step."""
        self.model.set_statistics(*mel_statistics(clips))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        losses = self.model.losses(batch)
        total = losses["forward_sum"]
        if self.global_step >= self.binarise_after:
            total = total + self.binarisation * losses["binarisation"]
        self._log("train", losses, len(batch.ids))
        return total

    def validation_step(self, batch: Batch, index: int) -> None:
        losses = self.model.losses(batch)
        durations = self.model.durations(batch)
        real = durations > 0
        # One-frame phones are where an alignment has collapsed.
        losses["one_frame"] = ((durations == 1) & real).sum() / real.sum()
        self._log("val", losses, len(batch.ids))
        if index == 0:
            attention = self.model.align(batch).log_attention.exp()
            for row in range(min(self.images, len(batch.ids))):
                frames, symbols = int(batch.mel_lengths[row]), int(batch.phone_lengths[row])
                path = path_symbols(durations[row : row + 1], frames)[0]
                hard = torch.nn.functional.one_hot(path, symbols).float()
                soft = attention[row, :frames, :symbols]
                log_heat_map(self.logger, f"alignment/{batch.ids[row]}", torch.cat([soft, hard], 1).T, self.global_step)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=1e-6)
        scheduler = warmup_cosine(optimizer, self.warmup, self.max_steps, floor=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _log(self, part: str, losses: dict[str, Tensor], size: int) -> None:
        self.log_dict({f"{part}/{name}": value for name, value in losses.items()}, batch_size=size)
