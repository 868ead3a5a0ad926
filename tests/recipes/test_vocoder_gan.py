"""The adversarial run of the real configuration, with a model and discriminators of a toy's size."""

import torch

from melstate.recipes.checkpointing import AtomicCheckpoints
from melstate.recipes.train import train
from melstate.vocoders import checkpoint

SHORT = (
    "+task.warmup=1",
    "ema=0.9",
    "data.frames=16",
    "task.max_steps=4",
    "+task.adversarial_from=1",
    *(f"+task.model.{name}" for name in ("dim=16", "layers=1", "pitch_dim=16", "pitch_layers=1", "lookahead=2")),
)


def toy(compose, *overrides):
    config = compose("vocoder_gan", *SHORT, *overrides)
    config.task.discriminators[0].channels = [2, 2, 4]
    config.task.discriminators[1].channels = 2
    return config


def test_a_resumed_adversarial_run_equals_an_uninterrupted_one(compose, tmp_path):
    first = train(toy(compose, "name=first", "trainer.max_steps=1"))
    start = f"init_from={first}"
    train(toy(compose, "name=whole", "trainer.max_steps=4", start))
    for steps in (2, 4):
        train(toy(compose, "name=parts", f"trainer.max_steps={steps}", start))
    whole, parts = (checkpoint.read(tmp_path / name / "model.safetensors").tensors for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole) and whole.keys() == parts.keys()
    states = [AtomicCheckpoints().load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts")]
    for part in ("state_dict", "current_model_state"):
        one, other = (state[part] for state in states)
        assert any("discriminators" in name for name in one)
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(bool(value.isfinite().all()) for value in one.values())
    for one, other in zip(*(state["optimizer_states"] for state in states), strict=True):
        assert one["state"].keys() == other["state"].keys() and one["state"]
        for mine, theirs in zip(one["state"].values(), other["state"].values(), strict=True):
            assert torch.equal(mine["exp_avg"], theirs["exp_avg"]) and mine["step"] == theirs["step"]
    assert [len(state["optimizer_states"]) for state in states] == [2, 2]
