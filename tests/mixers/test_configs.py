"""The shipped mixer configs: one per mixer, each builds and runs."""

from pathlib import Path

import pytest
import torch
import yaml

from melstate.mixers.mixer import create, names

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "mixer"


@pytest.mark.parametrize("name", names())
def test_the_config_of_each_mixer_builds_it(name):
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert config.pop("name") == name
    mixer = create(name, 32, **config)
    x = torch.randn(1, 3, 32)
    assert mixer(x)[0].shape == x.shape


def test_no_config_is_left_without_a_mixer():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(names())
