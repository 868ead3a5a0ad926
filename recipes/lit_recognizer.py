"""Training of the recogniser: joint CTC, phone CTC and attention, judged by word errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from melstate.asr.augment import SpecAugment
from melstate.asr.ctc import best_path
from melstate.asr.features import perturbed_log_mel
from melstate.asr.model import SpeechBatch, SpeechModel
from melstate.asr.scoring import WordErrors, word_errors
from melstate.recipes.data.clips import Clip
from melstate.recipes.lit_module import LitModule

STATISTICS_CLIPS = 400


class LitRecognizer(LitModule):
    """The recogniser's training.

    Args:
        model: a SpeechModel.
        mask: keyword arguments of SpecAugment; None for no masks.
        smoothing, misread: see SpeechModel.losses.
        examples: development utterances written out at each validation.
        options: see LitModule.
    """

    LOSS_WEIGHTS: ClassVar = {"ctc": 0.5, "phones": 0.3, "attention": 0.5}

    def __init__(
        self,
        model: SpeechModel,
        *,
        mask: Mapping[str, Any] | None = None,
        smoothing: float = 0.1,
        misread: float = 0.05,
        examples: int = 5,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.mask = None if mask is None else SpecAugment(**mask)
        self.smoothing, self.misread, self.examples = smoothing, misread, examples
        self.errors: dict[str, WordErrors] = {}

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Normalise by the training clips, those that are heard; called once, before the first step."""
        clips = [clip for clip in clips if clip.weight > 0]
        step = max(1, len(clips) // STATISTICS_CLIPS)
        mels = [
            perturbed_log_mel(torch.from_numpy(clip.waveform.speech / 32768.0).float(), self.model.mel)
            for clip in clips[::step]
        ]
        frames = torch.cat(mels)
        self.model.set_statistics(frames.mean(0), frames.std(0).clamp(min=0.1))

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        losses = self.model.losses(batch, mask=self.mask, smoothing=self.smoothing, misread=self.misread)
        return self.weigh("train", losses, len(batch.texts))

    def on_validation_epoch_start(self) -> None:
        self.errors = {}

    def validation_step(self, batch: SpeechBatch, index: int, dataloader_idx: int = 0) -> None:
        """Word errors of the best CTC path."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        name = data.dev_names[dataloader_idx]
        memory, _ = self.model.encoder(batch.mels, lengths=batch.mel_lengths)
        log_probs = self.model.token_log_probs(memory.values)
        for row, text in enumerate(batch.texts):
            heard = data.tokens.decode(best_path(log_probs[row, : memory.lengths[row]]))
            self.errors[name] = self.errors.get(name, WordErrors()) + word_errors(text, heard)
            if row < self.examples and not index:
                logger: Any = self.logger
                logger.experiment.add_text(f"{name}/{row}", f"{text} → {heard}", self.global_step)

    def on_validation_epoch_end(self) -> None:
        for name, errors in self.errors.items():
            self.log(f"wer/{name}", errors.rate, prog_bar=True)
        self.log("wer/all", sum(self.errors.values(), WordErrors()).rate)
