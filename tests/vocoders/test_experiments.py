"""Every vocoder experiment names classes that exist, with arguments that they take."""

import inspect

import hydra
import pytest
from omegaconf import OmegaConf

from melstate.recipes.lit_vocoder import LitVocoder

EXPERIMENTS = (
    "vocoder",
    "vocoder_gan",
    "vocoder_finetune",
    "vocoder_universal",
    "hifigan",
    "hifigan_small",
    "istftnet",
    "melgan",
    "multiband_melgan",
    "vocos",
)


def check(node):
    """Binds every _target_ below the node to its arguments."""
    if isinstance(node, list):
        for part in node:
            check(part)
    if isinstance(node, dict):
        arguments = {name: value for name, value in node.items() if name != "_target_"}
        check(list(arguments.values()))
        if "_target_" in node:
            inspect.signature(hydra.utils.get_class(node["_target_"])).bind(**arguments)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_compose(name):
    overrides = [f"experiment={name}"]
    with hydra.initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose("train", overrides).task, resolve=True)
    check(config)
    assert hydra.utils.get_class(config["_target_"]) is LitVocoder
    assert config["max_steps"] > config.get("adversarial_from", 0)


def test_a_wrong_argument_is_seen():
    with pytest.raises(TypeError):
        check({"_target_": "melstate.vocoders.istft.Vocos", "width": 3})
