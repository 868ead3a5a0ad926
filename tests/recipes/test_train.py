"""The recipes as users run them, on six clips: they train, resume bit for bit, and never leave half a checkpoint."""

import shutil

import numpy as np
import pytest
import torch

from melstate.recipes.align import align_run
from melstate.recipes.checkpointing import AtomicCheckpoints
from melstate.recipes.train import train
from melstate.vocoders import checkpoint

SHORT = ("task.warmup=1", "ema=0.9")


def tensors(path):
    return checkpoint.read(path).tensors


def test_a_resumed_run_equals_an_uninterrupted_one(compose, tmp_path):
    whole = tensors(train(compose("aligner", *SHORT, "name=whole", "trainer.max_steps=4", "task.max_steps=4")))
    train(compose("aligner", *SHORT, "name=parts", "trainer.max_steps=2", "task.max_steps=4"))
    parts = tensors(train(compose("aligner", *SHORT, "name=parts", "trainer.max_steps=4", "task.max_steps=4")))
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    states = [AtomicCheckpoints().load_checkpoint(tmp_path / run / "last.ckpt") for run in ("whole", "parts")]
    for one, other in zip(*(s["optimizer_states"][0]["state"].values() for s in states), strict=True):
        assert torch.equal(one["exp_avg"], other["exp_avg"]) and torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])
    before = tensors(tmp_path / "parts" / "model.safetensors")
    again = tensors(train(compose("aligner", *SHORT, "name=parts", "export_only=true")))
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_alignment_covers_every_clip(compose, tmp_path):
    train(compose("aligner", *SHORT, "name=aligner", "trainer.max_steps=2", "task.max_steps=2"))
    with np.load(align_run(tmp_path / "aligner")) as durations:
        assert len(durations) == 6
        assert all(row.min() >= 1 for row in durations.values())


def test_a_run_starts_from_given_weights(compose, tmp_path):
    first = train(compose("aligner", *SHORT, "name=first", "trainer.max_steps=2", "task.max_steps=2"))
    config = compose("aligner", *SHORT, "name=second", "trainer.max_steps=2", f"init_from={first}", "task.lr=0")
    second = tensors(train(config))
    for name, value in tensors(first).items():
        torch.testing.assert_close(second[name], value)
    third = train(compose("aligner", *SHORT, "name=third", "trainer.max_steps=2", "task.max_steps=2", "task.lr=0.01"))
    mean = train(
        compose("aligner", *SHORT, "name=mean", "trainer.max_steps=2", f"init_from=[{first},{third}]", "task.lr=0")
    )
    for name, value in tensors(mean).items():
        torch.testing.assert_close(value, (tensors(first)[name] + tensors(third)[name]) / 2)


def test_weights_of_another_kind_are_refused(compose, tmp_path):
    first = train(compose("aligner", *SHORT, "name=first", "trainer.max_steps=1", "task.max_steps=2"))
    with pytest.raises(ValueError, match="holds a 'aligner', the experiment trains a 'source_filter'"):
        train(compose("vocoder", f"init_from={first}", "data.frames=16", "ema=0"))


def test_checkpoints_are_whole_or_absent(tmp_path, monkeypatch):
    plugin = AtomicCheckpoints()
    path = tmp_path / "run" / "last.ckpt"
    plugin.save_checkpoint({"x": torch.arange(3)}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        plugin.save_checkpoint({"x": torch.arange(4)}, path)
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    assert torch.equal(plugin.load_checkpoint(path)["x"], torch.arange(3))


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"x": torch.arange(1000)}, path)
    shutil.copy(path, tmp_path / "whole.ckpt")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"last\.ckpt: not a readable checkpoint"):
        AtomicCheckpoints().load_checkpoint(path)


def test_pickled_code_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.ckpt")
    with pytest.raises(Exception, match="(?i)weights.only|unsupported"):
        AtomicCheckpoints().load_checkpoint(tmp_path / "bomb.ckpt")
    assert not (tmp_path / "exploded").exists()
