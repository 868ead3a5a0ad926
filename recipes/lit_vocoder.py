"""Training of vocoders: spectral reconstruction first, adversarially from a given step on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.recipes.pictures import log_heat_map
from melstate.recipes.schedule import warmup_cosine
from melstate.vocoders.losses import adversarial_loss, discriminator_loss, feature_loss, reconstruction_losses
from melstate.vocoders.mel import log_mel
from melstate.vocoders.vocoder import Vocoder, VocoderBatch


class LitVocoder(L.LightningModule):
    """AdamW on mel and STFT losses; with discriminators, a GAN from step `adversarial_from`.

    A step is a generator step: the discriminators' updates are not counted. Gradients are clipped here, not by the
    Trainer, because optimisation is manual.

    Args:
        model: the generator.
        discriminators: modules from audio (B, samples) to lists of Verdict; empty trains reconstruction only.
        weights: factors on the losses by name; a loss of the model's own that is not named counts once.
        resolution_weight: factor on the adversarial and feature losses of the discriminators after the first.
        kind: of the adversarial losses: "hinge", "hinge_both" or "squares"; see vocoders.losses.
        lr, floor: peak learning rate and the fraction of it where the cosine ends.
        warmup, max_steps: of the schedule, in steps.
        discriminator_lr: peak learning rate of the discriminators.
        adversarial_from: first step with discriminators.
        betas, weight_decay: of AdamW.
        clip: bound on the norm of the gradient.
        gain_db: range of the random level each training clip is given.
        samples: validation clips to hear and see in TensorBoard.
    """

    def __init__(
        self,
        model: Vocoder,
        discriminators: Sequence[nn.Module] = (),
        weights: dict[str, float] | None = None,
        resolution_weight: float = 1.0,
        kind: str = "hinge_both",
        lr: float = 1e-3,
        floor: float = 0.1,
        warmup: int = 200,
        max_steps: int = 15000,
        discriminator_lr: float = 5e-4,
        adversarial_from: int = 0,
        betas: tuple[float, float] = (0.8, 0.99),
        weight_decay: float = 0.01,
        clip: float = 10.0,
        gain_db: tuple[float, float] = (-9.0, 3.0),
        samples: int = 3,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.discriminators = nn.ModuleList(discriminators)
        self.weights = {"mel": 15.0, "stft": 10.0, "adversarial": 1.0, "features": 2.0, **(weights or {})}
        self.resolution_weight, self.kind = resolution_weight, kind
        self.lr, self.floor, self.warmup, self.max_steps = lr, floor, warmup, max_steps
        self.discriminator_lr, self.adversarial_from = discriminator_lr, adversarial_from
        self.betas, self.weight_decay, self.clip = tuple(betas), weight_decay, clip
        self.gain_db, self.samples = tuple(gain_db), samples

    def training_step(self, batch: VocoderBatch, index: int) -> None:
        batch = self._at_random_level(batch)
        fake, losses = self.model.generate(batch)
        fake = fake.float()
        losses |= reconstruction_losses(fake, batch.audio, self.model.mel, bandwidth=batch.bandwidth)
        adversarial = len(self.discriminators) > 0 and self.global_step >= self.adversarial_from
        if adversarial:
            losses["discriminator"] = self._train_discriminators(batch.audio, fake.detach())
            losses |= self._judge(batch.audio, fake)
        optimizer: Any = self.optimizers()
        optimizer = optimizer[0] if isinstance(optimizer, list) else optimizer
        total = fake.new_zeros(())
        for name, value in losses.items():
            if name != "discriminator":
                total = total + self.weights.get(name, 1.0) * value
        optimizer.zero_grad()
        self.manual_backward(total)
        losses["gradient"] = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()
        for scheduler in self._schedulers()[: 1 + adversarial]:
            scheduler.step()
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=len(batch.mel))
        self.log("mel", losses["mel"].detach(), prog_bar=True, logger=False)

    def validation_step(self, batch: VocoderBatch, index: int) -> None:
        clean = batch._replace(mel=batch.mel.float(), audio=batch.audio.float(), f0=batch.f0.float())
        audio = self.model(clean.mel).float()
        shown = audio[..., : clean.audio.shape[-1]]
        again, target = log_mel(shown, self.model.mel), log_mel(clean.audio, self.model.mel)
        figures = {"mel": F.l1_loss(again, target)}
        if self.model.takes_f0:
            f0 = self.model.estimate_f0(clean.mel)  # type: ignore[operator]
            both = (f0 > 0) & (clean.f0 > 0)
            cents = 1200 * (torch.log2(f0.clamp(min=1.0)) - torch.log2(clean.f0.clamp(min=1.0))).abs()
            figures["f0_cents"] = cents[both].mean() if bool(both.any()) else cents.new_zeros(())
            figures["voicing_error"] = ((f0 > 0) != (clean.f0 > 0)).float().mean()
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, batch_size=1, sync_dist=True)
        writer: Any = getattr(self.logger, "experiment", None)
        if index < self.samples and hasattr(writer, "add_audio"):
            writer.add_audio(f"speech/{index}", shown[0].cpu(), self.global_step, self.model.mel.sample_rate)
            log_heat_map(self.logger, f"mel/{index}", torch.cat([target[0], again[0]]), self.global_step)

    def configure_optimizers(self) -> Any:
        groups = [(self.model, self.lr)]
        if self.discriminators:
            groups.append((self.discriminators, self.discriminator_lr))  # type: ignore[arg-type]
        steps = [self.max_steps, max(self.max_steps - self.adversarial_from, self.warmup + 1)]
        optimizers = [
            torch.optim.AdamW(
                [p for p in module.parameters() if p.requires_grad],
                lr=lr,
                betas=self.betas,  # type: ignore[arg-type]
                weight_decay=self.weight_decay,
                fused=True,
            )
            for module, lr in groups
        ]
        schedules = [warmup_cosine(o, self.warmup, n, self.floor) for o, n in zip(optimizers, steps, strict=False)]
        return optimizers, schedules

    def _schedulers(self) -> list[Any]:
        schedulers: Any = self.lr_schedulers()
        return schedulers if isinstance(schedulers, list) else [schedulers]

    def _at_random_level(self, batch: VocoderBatch) -> VocoderBatch:
        """Scales each clip; a gain moves a log-mel by its logarithm, down to the floor. Peaks stay within 1."""
        low, high = self.gain_db
        db = low + (high - low) * torch.rand(len(batch.audio), 1, device=batch.audio.device)
        peak = batch.audio.abs().amax(1, keepdim=True).clamp(min=1e-3)
        gain = torch.minimum(10 ** (db / 20), 1 / peak)
        mel = (batch.mel + gain.log()[..., None]).clamp(min=math.log(self.model.mel.floor))
        return batch._replace(mel=mel, audio=batch.audio * gain)

    def _train_discriminators(self, real: Tensor, fake: Tensor) -> Tensor:
        """One step on detached audio; returns the loss. The optimiser is taken bare so that the step is not counted."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer = optimizer[1]
        total = real.new_zeros(())
        for number, module in enumerate(self.discriminators):
            # One pass over both halves costs less than two.
            logits = [verdict.logits.chunk(2) for verdict in module(torch.cat([real, fake]))]
            loss = discriminator_loss([pair[0] for pair in logits], [pair[1] for pair in logits], self.kind)
            total = total + loss * (self.resolution_weight if number else 1.0)
        optimizer.zero_grad()
        self.manual_backward(total)
        nn.utils.clip_grad_norm_(self.discriminators.parameters(), self.clip)
        optimizer.step()
        return total

    def _judge(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Adversarial and feature losses of the generator, with the discriminators frozen."""
        self.discriminators.requires_grad_(False)
        adversarial = features = fake.new_zeros(())
        for number, module in enumerate(self.discriminators):
            weight = self.resolution_weight if number else 1.0
            judged = module(fake)
            with torch.no_grad():
                truth = module(real)
            adversarial = adversarial + weight * adversarial_loss([v.logits for v in judged], self.kind)
            maps = ([v.activations for v in truth], [v.activations for v in judged])
            features = features + weight * feature_loss(*maps)
        self.discriminators.requires_grad_(True)
        return {"adversarial": adversarial, "features": features}
