"""Runs of the real configuration on the six clips in tests/speech."""

from pathlib import Path

import pytest

SPEECH = Path(__file__).parents[1] / "speech"
TINY_RECOGNIZER = [
    "~data.corpora",
    f"+data.corpora={{six: {{layout: ljspeech, folder: {SPEECH}, speaker: one, dev_prompts: 2}}}}",
    "data.folder=/",
    "data.pieces=0",
    "data.batch_seconds=6",
    "task.model.tokens=34",
    *(f"task.model.encoder.{option}" for option in ("dim=32", "layers=2", "tap=1", "chunk=10", "conv=3")),
    "+task.model.encoder.channels=4",
    "task.model.decoder.dim=32",
    "task.model.decoder.layers=1",
    "task.warmup=1",
    "task.max_steps=4",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.val_check_interval=2",
    "ema=0.9",
    "threads=1",
    "progress=null",
]


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


@pytest.fixture(scope="session")
def train_recognizer():
    """train_recognizer(runs, "name", …) → the exported weights of a run of a few steps on the test clips."""

    def run(runs, name, *overrides, experiment="recognizer"):
        from hydra import compose, initialize_config_module

        from melstate.recipes.train import train

        with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
            options = [f"experiment={experiment}", *TINY_RECOGNIZER, f"runs_dir={runs}", f"name={name}", *overrides]
            return train(compose("train", options))

    return run
