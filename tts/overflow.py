"""OverFlow as an acoustic model; see melstate.tts.flow for what it is."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from melstate.tts.acoustic import Batch
from melstate.tts.flow import SQUEEZE, Flow
from melstate.tts.neural_hmm import NeuralHMM


class OverFlow(NeuralHMM):
    """Neural HMM over the latents of a flow. Its inversion looks ahead: `stream` speaks a sentence once it is whole.

    Args:
        flow_steps, flow_hidden, flow_layers, flow_dropout: of melstate.tts.flow.Flow.
        options: of NeuralHMM; floor, temperature and threshold by default 0.001, 0.667 and 0.55, as published.
    """

    kind: ClassVar[str] = "overflow"
    whole: ClassVar[bool] = True

    def __init__(
        self,
        *,
        flow_steps: int = 12,
        flow_hidden: int = 150,
        flow_layers: int = 4,
        flow_dropout: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(**{"floor": 0.001, "temperature": 0.667, "threshold": 0.55, **options})
        if self.states * self.reduction < SQUEEZE:
            raise ValueError(
                f"a symbol needs at least {SQUEEZE} frames: states · reduction is {self.states} · {self.reduction}"
            )
        self.config |= {
            "flow_steps": flow_steps,
            "flow_hidden": flow_hidden,
            "flow_layers": flow_layers,
            "flow_dropout": flow_dropout,
        }
        self.unit = math.lcm(self.reduction, SQUEEZE)
        self.flow = Flow(self.mel.n_mels, flow_steps, flow_hidden, flow_layers, dropout=flow_dropout)

    @torch.no_grad()
    def fit_flow(self, batch: Batch) -> None:
        """Set the flow's activation normalisations by some training utterances; once, before training."""
        frames = self._groups(batch.mel_lengths) * self.reduction
        self.flow(self._completed(batch.mels, batch.mel_lengths), frames, fit=True)

    def _observed(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        latents, volume = self.flow(self._completed(mels, frames), self._groups(frames) * self.reduction)
        return self._grouped(latents), volume

    def _spoken(self, emitted: Tensor) -> Tensor:
        frames = emitted.shape[1]
        even = frames + frames % SQUEEZE
        latents = torch.cat([emitted, emitted[:, frames - (even - frames) :]], 1) if even > frames else emitted
        return self.flow.inverse(latents[None], torch.tensor([even], device=emitted.device))[0, :, :frames]
