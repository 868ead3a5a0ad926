"""Training of the speaker encoder: telling the training voices apart by angle, with a margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.recipes.data.speakers import SpeakerBatch, SpeakerClip
from melstate.recipes.schedule import warmup_cosine


def margin_logits(embeddings: Tensor, directions: Tensor, targets: Tensor, margin: float, scale: float) -> Tensor:
    """scale · cos of the angles to each class' direction, the target's angle widened by `margin` radians: (B, classes).

    Past π - margin, where widening would make the cosine grow again, the target's logit falls linearly instead.
    Source: Deng et al., CVPR 2019 (arXiv 1801.07698), equation 3.
    """
    cosine = F.linear(embeddings, F.normalize(directions, dim=1)).clamp(-1 + 1e-6, 1 - 1e-6)
    target = cosine.gather(1, targets[:, None])
    wide = torch.cos(torch.acos(target) + margin)
    wide = torch.where(target > np.cos(np.pi - margin), wide, target - np.sin(np.pi - margin) * margin)
    return scale * cosine.scatter(1, targets[:, None], wide)


def equal_error_rate(similarity: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """(rate, threshold) where as many same-speaker pairs fall under the threshold as different ones reach it.

    Args:
        similarity: (pairs,). same: (pairs,) bool. Both kinds must occur.
    """
    if same.all() or not same.any():
        raise ValueError("equal error rate: needs pairs of one speaker and pairs of two")
    order = np.argsort(similarity, kind="stable")
    missed = np.concatenate([[0], np.cumsum(same[order])]) / same.sum()  # the first k are rejected
    accepted = 1 - np.concatenate([[0], np.cumsum(~same[order])]) / (~same).sum()
    at = int(np.argmin(np.abs(missed - accepted)))
    return float(missed[at] + accepted[at]) / 2, float(similarity[order[min(at, len(order) - 1)]])


class LitSpeaker(L.LightningModule):
    """AdamW on the additive angular margin loss; validation is the equal error rate over unseen voices.

    Args:
        model: the encoder.
        lr: peak learning rate; warmup, max_steps: of the cosine schedule, in optimiser steps.
        margin: radians, grown from 0 over the first third of the steps.
        scale: of the cosines.
    """

    directions: nn.Parameter

    def __init__(
        self,
        model: SpeakerEncoder,
        lr: float = 2e-3,
        warmup: int = 100,
        max_steps: int = 2000,
        margin: float = 0.2,
        scale: float = 30.0,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        self.model = model
        self.lr, self.warmup, self.max_steps = lr, warmup, max_steps
        self.margin, self.scale, self.weight_decay = margin, scale, weight_decay
        self._embeddings: list[Tensor] = []
        self._speakers: list[Tensor] = []

    def fit_symbols(self, clips: Sequence[SpeakerClip]) -> None:
        """One direction a voice; called once before training, on every start."""
        classes = 1 + max(clip.speaker for clip in clips)
        self.directions = nn.Parameter(F.normalize(torch.randn(classes, self.model.dim), dim=1))

    def training_step(self, batch: SpeakerBatch, index: int) -> Tensor:
        embeddings = self.model(batch.mels)
        margin = self.margin * min(1.0, 3 * self.global_step / self.max_steps)
        with torch.autocast(embeddings.device.type, enabled=False):  # the angle of a bfloat16 cosine is too coarse
            logits = margin_logits(embeddings.float(), self.directions, batch.speakers, margin, self.scale)
            loss = F.cross_entropy(logits, batch.speakers)
        right = (logits.argmax(1) == batch.speakers).float().mean()
        self.log_dict({"train/loss": loss, "train/accuracy": right}, batch_size=len(batch.speakers), prog_bar=True)
        return loss

    def validation_step(self, batch: SpeakerBatch, index: int) -> None:
        self._embeddings.append(self.model(batch.mels).float().cpu())
        self._speakers.append(batch.speakers.cpu())

    def on_validation_epoch_end(self) -> None:
        embeddings, speakers = torch.cat(self._embeddings), torch.cat(self._speakers)
        self._embeddings, self._speakers = [], []
        first, second = torch.triu_indices(len(speakers), len(speakers), 1)
        similarity = (embeddings @ embeddings.T)[first, second].numpy()
        same = (speakers[first] == speakers[second]).numpy()
        if same.any() and not same.all():
            rate, threshold = equal_error_rate(similarity, same)
            self.log_dict({"val/equal_error_rate": rate, "val/threshold": threshold}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = warmup_cosine(optimizer, self.warmup, self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
