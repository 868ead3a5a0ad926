"""Training of Lina."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.recipes.data.statistics import level_statistics, stand_ins
from melstate.recipes.pictures import log_heat_map
from melstate.recipes.schedule import adamw
from melstate.tts.acoustic import Batch
from melstate.tts.lina import Lina

LOSS_WEIGHTS = {"mel": 1.0, "contour": 0.1, "stop": 0.5, "alignment": 0.2, "content": 0.1}


class LitLina(L.LightningModule):
    """AdamW on the weighted sum of the model's losses.

    Args:
        model: the acoustic model.
        loss_weights: by loss name, beside `LOSS_WEIGHTS`, which it overrides.
        guide_steps: steps over which the diagonal prior of unaligned utterances fades; see Lina.losses.
        lr: peak learning rate.
        betas, weight_decay: of AdamW; weight decay is for matrices alone, not for biases, norms, embeddings, speakers.
        warmup, max_steps, floor: of the cosine schedule, in optimiser steps and as a fraction of the peak.
        images: validation utterances drawn, and spoken, at each validation.
    """

    def __init__(
        self,
        model: Lina,
        loss_weights: Mapping[str, float] | None = None,
        guide_steps: int = 3000,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.98),
        weight_decay: float = 0.05,
        warmup: int = 500,
        max_steps: int = 10000,
        floor: float = 0.01,
        images: int = 2,
    ) -> None:
        super().__init__()
        unknown = set(loss_weights or ()) - set(LOSS_WEIGHTS)
        if unknown:
            raise ValueError(f"loss_weights: {sorted(unknown)} are not losses; the losses are {sorted(LOSS_WEIGHTS)}")
        self.model = model
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.guide_steps = guide_steps
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.warmup, self.max_steps, self.floor, self.images = warmup, max_steps, floor, images

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Set the levels by the training clips; called once, before the first step."""
        self.model.set_statistics(*level_statistics(clips, self.model))

    def fit_symbols(self, clips: Sequence[Clip]) -> None:
        """Tell the model which symbols it will hardly see; called at every start, since this is configuration."""
        self.model.set_stand_ins(stand_ins(clips))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self._losses("train", batch, max(0.0, 1 - self.global_step / max(self.guide_steps, 1)))

    def validation_step(self, batch: Batch, index: int) -> None:
        self._losses("val", batch, 0.0)
        if index:
            return
        attended = self.model.teach(batch, self.model.values(batch)).attended
        for row in range(min(self.images, len(batch.ids))):
            frames, symbols = int(batch.mel_lengths[row]), batch.phones[row, : batch.phone_lengths[row]].tolist()
            steps = -(-frames // self.model.group)
            pictures = {
                "target": batch.mels[row, :, :frames],
                "spoken": torch.cat([part.mel for part in self.model.stream(symbols)], 1),
                "attention": attended.weights[row, :steps, : len(symbols)].T,
                "content": attended.content[row, :steps, : len(symbols)].softmax(-1).T,
            }
            for kind, picture in pictures.items():
                log_heat_map(self.logger, f"mel/{batch.ids[row]}/{kind}", picture, self.global_step)

    def configure_optimizers(self) -> Any:
        return adamw(
            self.model,
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            max_steps=self.max_steps,
            floor=self.floor,
            plain=("embedding", "starts"),
        )

    def _losses(self, part: str, batch: Batch, guide: float) -> Tensor:
        losses = self.model.losses(batch, guide=guide)
        total = torch.stack([self.loss_weights[name] * value for name, value in losses.items()]).sum()
        self.log_dict({f"{part}/{name}": value for name, value in losses.items()}, batch_size=len(batch.ids))
        self.log(f"{part}/loss", total, batch_size=len(batch.ids), prog_bar=part == "train")
        return total
