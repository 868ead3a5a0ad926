"""The LibriSpeech experiments as they are configured: their size, and two steps on a corpus in the same layout."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from melstate.recipes.train import train
from melstate.vocoders import checkpoint

SPEECH = Path(__file__).parents[1] / "speech"
DATA = Path(os.environ.get("MELSTATE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SMALL = (
    "threads=1",
    "progress=null",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "task.warmup=1",
    "data.pieces=40",
    "task.model.tokens=46",
    "data.batch_seconds=8",
    "data.workers=0",
    "task.model.encoder.dim=32",
    "task.model.encoder.layers=2",
    "task.model.decoder.dim=32",
    "task.model.decoder.layers=1",
)


def settings(experiment, *overrides):
    with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        return compose("train", [f"experiment={experiment}", *overrides])


@pytest.mark.parametrize(("experiment", "millions"), [("librispeech_10m", 10), ("librispeech_30m", 30)])
def test_models_have_the_size_they_are_named_after(experiment, millions):
    config = settings(experiment)
    with torch.device("meta"):
        model = instantiate(config.task.model, _convert_="all")
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.06)
    assert config.task.model.tokens == config.data.pieces + 6


def test_both_amounts_of_data_can_be_chosen():
    assert len(settings("librispeech_10m").data.corpora.librispeech.train) == 3
    less = settings("librispeech_30m", "data=librispeech_100").data
    assert list(less.corpora.librispeech.train) == ["train-clean-100"]
    assert less.pieces == 500 and list(less.corpora.librispeech.dev) == ["dev-clean", "dev-other"]


def test_a_corpus_in_its_layout_is_trained_on_end_to_end(tmp_path):
    clips = sorted((SPEECH / "wavs").glob("*.flac"))
    texts = [
        "THE FIRST OF SIX CLIPS",
        "ANOTHER ONE",
        "QUITE A WALTZ JUMPS VEXED",
        "FROM BELOW",
        "MAKE IT BIG",
        "ZOO KEEPERS",
    ]
    for part, chosen in (("train-clean-100", range(4)), ("dev-clean", range(4, 5)), ("dev-other", range(5, 6))):
        chapter = tmp_path / "LibriSpeech" / part / "7" / "8"
        chapter.mkdir(parents=True)
        for n in chosen:
            shutil.copy(clips[n], chapter / f"7-8-000{n}.flac")
        (chapter / "7-8.trans.txt").write_text("".join(f"7-8-000{n} {texts[n]}\n" for n in chosen))
    path = train(
        settings("librispeech_10m", *SMALL, "data=librispeech_100", f"data.folder={tmp_path}", f"runs_dir={tmp_path}")
    )
    saved = checkpoint.read(path)
    assert saved.kind == "recognizer" and saved.extra["steps"] == 2 and "tokens" in saved.extra


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the training speech beside the checkout")
def test_the_sample_of_librispeech_is_trained_on(tmp_path):
    parts = ["data.corpora.librispeech.train=[test-clean]", "data.corpora.librispeech.dev=[]"]
    folder = f"data.folder={DATA / 'librispeech_sample'}"
    path = train(
        settings(
            "librispeech_10m", *SMALL, folder, f"runs_dir={tmp_path}", *parts, "data.pieces=0", "task.model.tokens=34"
        )
    )
    assert checkpoint.read(path).extra["steps"] == 2
