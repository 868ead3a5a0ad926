"""Training of neural HMMs, OverFlow among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip, collate
from melstate.recipes.data.statistics import mel_statistics, stand_ins
from melstate.recipes.lit_module import LitModule
from melstate.recipes.pictures import log_heat_map
from melstate.tts.acoustic import Batch
from melstate.tts.neural_hmm import NeuralHMM, utterance_prosody
from melstate.tts.overflow import OverFlow

FITTED = 32  # clips that a flow's normalisations are fitted to


class LitNeuralHMM(LitModule):
    """Training on the negative log-likelihood, the only loss there is.

    Args:
        model: the neural HMM, plain or over a flow.
        images: validation utterances spoken at each validation.
        options: see LitModule.
    """

    LOSS_WEIGHTS: ClassVar = {"likelihood": 1.0}

    def __init__(self, model: NeuralHMM, *, images: int = 2, **options: Any) -> None:
        super().__init__(model, **options)
        self.images = images

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Normalise by the training clips and start flat at their rate; called once, before the first step."""
        prosody = torch.cat([utterance_prosody(collate([clip])) for clip in clips])
        first = torch.stack([torch.from_numpy(clip.features.mel[:, 0]) for clip in clips]).float().mean(0)
        symbols, frames = sum(len(clip.phones) for clip in clips), sum(clip.features.mel.shape[1] for clip in clips)
        self.model.set_statistics(*mel_statistics(clips), prosody, first, symbols / frames)
        if isinstance(self.model, OverFlow):
            self.model.fit_flow(collate(clips[:FITTED]))

    def fit_symbols(self, clips: Sequence[Clip]) -> None:
        """Tell the model which symbols it will hardly see; called at every start, since this is configuration."""
        self.model.set_stand_ins(stand_ins(clips))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.weigh("train", self.model.losses(batch), len(batch.ids))

    def validation_step(self, batch: Batch, index: int) -> None:
        self.weigh("val", self.model.losses(batch), len(batch.ids))
        if index:
            return
        for row in range(min(self.images, len(batch.ids))):
            frames, symbols = int(batch.mel_lengths[row]), batch.phones[row, : batch.phone_lengths[row]].tolist()
            generator = torch.Generator().manual_seed(0)
            spoken = torch.cat([part.mel for part in self.model.stream(symbols, generator=generator)], 1)
            for kind, mel in (("target", batch.mels[row, :, :frames]), ("spoken", spoken)):
                log_heat_map(self.logger, f"mel/{batch.ids[row]}/{kind}", mel, self.global_step)
