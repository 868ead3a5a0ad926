"""The training module in the real Trainer, on noise."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from melstate.recipes.lit_vocoder import LitVocoder
from melstate.vocoders.discriminators import MultiPeriod, MultiResolution
from melstate.vocoders.mel import log_mel
from melstate.vocoders.source_filter import SourceFilter
from melstate.vocoders.vocoder import VocoderBatch


def small() -> SourceFilter:
    torch.manual_seed(0)
    return SourceFilter(dim=16, layers=1, pitch_dim=16, pitch_layers=1)


def batches(model, count, clips=2, frames=48):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        audio = 0.1 * torch.randn(clips, frames * 256, generator=generator)
        f0 = torch.full((clips, frames), 150.0)
        f0[:, ::5] = 0
        yield VocoderBatch(log_mel(audio, model.mel), audio, f0)


def trained(task, steps, tmp_path, precision="32-true"):
    loaders = [DataLoader(list(batches(task.model, n)), batch_size=None) for n in (steps, 1)]
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        precision=precision,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, *loaders)
    return trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_reconstruction_moves_every_parameter(tmp_path, precision):
    model = small()
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = trained(LitVocoder(model, max_steps=4, warmup=1), 3, tmp_path, precision)
    assert trainer.global_step == 3
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert not still
    assert all(bool(value.isfinite().all()) for value in model.parameters())
    assert float(trainer.callback_metrics["val/mel"]) > 0


def test_discriminators_train_from_their_step_on_and_are_not_counted(tmp_path):
    discriminators = [MultiPeriod(periods=(2, 3), channels=(2, 4, 4)), MultiResolution((512,), 2)]
    task = LitVocoder(small(), discriminators, max_steps=6, warmup=1, adversarial_from=2)
    before = [value.clone() for value in task.discriminators.parameters()]
    assert trained(task, 2, tmp_path).global_step == 2
    assert all(torch.equal(a, b) for a, b in zip(task.discriminators.parameters(), before, strict=True))
    task.adversarial_from = 0
    trainer = trained(task, 2, tmp_path)
    assert trainer.global_step == 2
    assert not any(torch.equal(a, b) for a, b in zip(task.discriminators.parameters(), before, strict=True))
    assert {"train/adversarial", "train/features", "train/discriminator"} <= set(trainer.callback_metrics)


def test_a_random_level_moves_audio_and_mel_alike():
    model = small()
    task = LitVocoder(model, gain_db=(-12.0, 6.0))
    batch = next(batches(model, 1))
    moved = task._at_random_level(batch)
    torch.testing.assert_close(log_mel(moved.audio, model.mel), moved.mel, atol=1e-3, rtol=0)
    assert not torch.allclose(moved.audio, batch.audio)
    assert float(moved.audio.abs().max()) <= 1.0
