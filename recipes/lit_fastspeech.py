"""Training of the FastSpeech-style acoustic model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.recipes.data.statistics import energy_statistics, mel_statistics, pitch_statistics, stand_ins
from melstate.recipes.lit_module import LitModule
from melstate.recipes.pictures import log_heat_map
from melstate.tts.acoustic import Batch
from melstate.tts.fastspeech import FastSpeech


class LitFastSpeech(LitModule):
    """FastSpeech's training.

    Args:
        model: the acoustic model.
        images: validation utterances drawn at each validation.
        options: see LitModule.
    """

    LOSS_WEIGHTS: ClassVar = {"mel": 1.0, "f0": 0.2, "voicing": 0.1, "pitch": 0.1, "energy": 0.1, "duration": 0.1}

    def __init__(self, model: FastSpeech, *, images: int = 2, **options: Any) -> None:
        super().__init__(model, **options)
        self.images = images

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Normalise by the training clips; called once, before the first step."""
        self.model.set_statistics(*mel_statistics(clips), pitch_statistics(clips), energy_statistics(clips))

    def fit_symbols(self, clips: Sequence[Clip]) -> None:
        """Tell the model which symbols it will hardly see; called at every start, since this is configuration."""
        self.model.set_stand_ins(stand_ins(clips))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.weigh("train", self.model.losses(batch), len(batch.ids))

    def validation_step(self, batch: Batch, index: int) -> None:
        self.weigh("val", self.model.losses(batch), len(batch.ids))
        if index:
            return
        forced = self.model.teacher_forced(batch)
        for row in range(min(self.images, len(batch.ids))):
            frames, symbols = int(batch.mel_lengths[row]), batch.phones[row, : batch.phone_lengths[row]].tolist()
            spoken = torch.cat([part.mel for part in self.model.stream(symbols)], 1)
            for kind, mel in (("target", batch.mels[row]), ("forced", forced[row]), ("spoken", spoken)):
                mel = mel if kind == "spoken" else mel[:, :frames]
                log_heat_map(self.logger, f"mel/{batch.ids[row]}/{kind}", mel, self.global_step)
