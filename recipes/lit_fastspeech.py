"""Training of the FastSpeech-style acoustic model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.recipes.data.statistics import energy_statistics, mel_statistics, pitch_statistics, stand_ins
from melstate.recipes.pictures import log_heat_map
from melstate.recipes.schedule import adamw
from melstate.tts.acoustic import Batch
from melstate.tts.fastspeech import FastSpeech

LOSS_WEIGHTS = {"mel": 1.0, "f0": 0.2, "voicing": 0.1, "pitch": 0.1, "energy": 0.1, "duration": 0.1}


class LitFastSpeech(L.LightningModule):
    """AdamW on the weighted sum of the model's losses.

    Args:
        model: the acoustic model.
        loss_weights: by loss name, beside `LOSS_WEIGHTS`, which it overrides.
        lr: peak learning rate.
        betas, weight_decay: of AdamW; weight decay is for matrices alone, not for biases, norms or embeddings.
        warmup, max_steps, floor: of the cosine schedule, in optimiser steps and as a fraction of the peak.
        images: validation utterances drawn at each validation.
    """

    def __init__(
        self,
        model: FastSpeech,
        loss_weights: Mapping[str, float] | None = None,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.98),
        weight_decay: float = 0.01,
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
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.warmup, self.max_steps, self.floor, self.images = warmup, max_steps, floor, images

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Normalise by the training clips; called once, before the first step."""
        self.model.set_statistics(*mel_statistics(clips), pitch_statistics(clips), energy_statistics(clips))

    def fit_symbols(self, clips: Sequence[Clip]) -> None:
        """Tell the model which symbols it will hardly see; called at every start, since this is configuration."""
        self.model.set_stand_ins(stand_ins(clips))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self._losses("train", batch)

    def validation_step(self, batch: Batch, index: int) -> None:
        self._losses("val", batch)
        if index:
            return
        forced = self.model.teacher_forced(batch)
        for row in range(min(self.images, len(batch.ids))):
            frames, symbols = int(batch.mel_lengths[row]), batch.phones[row, : batch.phone_lengths[row]].tolist()
            spoken = torch.cat([part.mel for part in self.model.stream(symbols)], 1)
            for kind, mel in (("target", batch.mels[row]), ("forced", forced[row]), ("spoken", spoken)):
                mel = mel if kind == "spoken" else mel[:, :frames]
                log_heat_map(self.logger, f"mel/{batch.ids[row]}/{kind}", mel, self.global_step)

    def configure_optimizers(self) -> Any:
        return adamw(
            self.model,
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            max_steps=self.max_steps,
            floor=self.floor,
        )

    def _losses(self, part: str, batch: Batch) -> Tensor:
        losses = self.model.losses(batch)
        total = torch.stack([self.loss_weights[name] * value for name, value in losses.items()]).sum()
        self.log_dict({f"{part}/{name}": value for name, value in losses.items()}, batch_size=len(batch.ids))
        self.log(f"{part}/loss", total, batch_size=len(batch.ids), prog_bar=part == "train")
        return total
