"""Training of the recogniser: joint CTC, phone CTC and attention, judged by word errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from melstate.asr.augment import SpecAugment
from melstate.asr.ctc import best_path
from melstate.asr.features import perturbed_log_mel
from melstate.asr.model import SpeechBatch, SpeechModel
from melstate.asr.scoring import WordErrors, word_errors
from melstate.recipes.data.clips import Clip
from melstate.recipes.schedule import adamw

LOSS_WEIGHTS = {"ctc": 0.5, "phones": 0.3, "attention": 0.5}
STATISTICS_CLIPS = 400


class LitRecognizer(L.LightningModule):
    """AdamW on the weighted sum of the model's losses.

    Args:
        model: a SpeechModel.
        loss_weights: by loss name, beside `LOSS_WEIGHTS`, which it overrides.
        lr, betas, weight_decay: of AdamW; weight decay is for matrices alone.
        warmup, max_steps, floor: of the cosine schedule, in optimiser steps and as a fraction of the peak.
        mask: keyword arguments of SpecAugment; None for no masks.
        smoothing, misread: see SpeechModel.losses.
        examples: development utterances written out at each validation.
    """

    def __init__(
        self,
        model: SpeechModel,
        loss_weights: Mapping[str, float] | None = None,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        warmup: int = 500,
        max_steps: int = 10000,
        floor: float = 0.01,
        mask: Mapping[str, Any] | None = None,
        smoothing: float = 0.1,
        misread: float = 0.05,
        examples: int = 5,
    ) -> None:
        super().__init__()
        unknown = set(loss_weights or ()) - set(LOSS_WEIGHTS)
        if unknown:
            raise ValueError(f"loss_weights: {sorted(unknown)} are not losses; the losses are {sorted(LOSS_WEIGHTS)}")
        self.model = model
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.warmup, self.max_steps, self.floor = warmup, max_steps, floor
        self.mask = None if mask is None else SpecAugment(**mask)
        self.smoothing, self.misread, self.examples = smoothing, misread, examples
        self.errors: dict[str, WordErrors] = {}

    def fit_statistics(self, clips: Sequence[Clip]) -> None:
        """Normalise by the training clips; called once, before the first step."""
        step = max(1, len(clips) // STATISTICS_CLIPS)
        mels = [
            perturbed_log_mel(torch.from_numpy(clip.waveform.speech / 32768.0).float(), self.model.mel)
            for clip in clips[::step]
        ]
        frames = torch.cat(mels)
        self.model.set_statistics(frames.mean(0), frames.std(0).clamp(min=0.1))

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        losses = self.model.losses(batch, mask=self.mask, smoothing=self.smoothing, misread=self.misread)
        total = torch.stack([self.loss_weights[name] * value for name, value in losses.items()]).sum()
        rows = len(batch.texts)
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, batch_size=rows)
        self.log("train/loss", total, batch_size=rows, prog_bar=True)
        return total

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
