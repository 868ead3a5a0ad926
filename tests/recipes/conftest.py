"""Runs of the real configuration on the six clips in tests/speech."""

from pathlib import Path

import pytest

SPEECH = Path(__file__).parents[1] / "speech"


@pytest.fixture(scope="session")
def speech_cache(tmp_path_factory):
    """A folder for features, shared by all runs of the session."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def compose(speech_cache, tmp_path):
    """compose("aligner", "trainer.max_steps=2") → the configuration of a run of that experiment on the test clips."""
    from hydra import compose, initialize_config_module

    def configure(experiment, *overrides):
        with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
            return compose(
                "train",
                [
                    f"experiment={experiment}",
                    "corpus=folder",
                    f"corpus.folder={SPEECH}",
                    "corpus.dev_prompts=2",
                    f"runs_dir={tmp_path}",
                    f"data.cache={speech_cache}",
                    "data.batch_size=2",
                    "data.prepare_workers=1",
                    "threads=1",
                    "progress=null",
                    "trainer.accelerator=cpu",
                    *overrides,
                ],
            )

    return configure
