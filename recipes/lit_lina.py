"""Training of Lina."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.recipes.data.statistics import level_statistics, stand_ins
from melstate.recipes.lit_module import LitModule
from melstate.recipes.pictures import log_heat_map
from melstate.tts.acoustic import Batch
from melstate.tts.lina import Lina


class LitLina(LitModule):
    """Lina's training.

    Args:
        model: the acoustic model.
        guide_steps: steps over which the diagonal prior of unaligned utterances fades; see Lina.losses.
        images: validation utterances drawn, and spoken, at each validation.
        weight_decay, options: see LitModule.
    """

    LOSS_WEIGHTS: ClassVar = {"mel": 1.0, "contour": 0.1, "stop": 0.5, "alignment": 0.2, "content": 0.1}
    PLAIN = ("embedding", "starts")

    def __init__(
        self, model: Lina, *, guide_steps: int = 3000, images: int = 2, weight_decay: float = 0.05, **options: Any
    ) -> None:
        super().__init__(model, weight_decay=weight_decay, **options)
        self.guide_steps, self.images = guide_steps, images

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Set the levels by the training clips; called once, before the first step."""
        self.model.set_statistics(*level_statistics(clips, self.model))

    def fit_symbols(self, clips: Sequence[Clip]) -> None:
        """Tell the model which symbols it will hardly see; called at every start, since this is configuration."""
        self.model.set_stand_ins(stand_ins(clips))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        guide = max(0.0, 1 - self.global_step / max(self.guide_steps, 1))
        return self.weigh("train", self.model.losses(batch, guide=guide), len(batch.ids))

    def validation_step(self, batch: Batch, index: int) -> None:
        self.weigh("val", self.model.losses(batch, guide=0.0), len(batch.ids))
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
