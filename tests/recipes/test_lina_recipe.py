"""Lina's recipe as users run it: one speaker on six clips, many speakers from several corpora."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from melstate.recipes.data.module import AcousticData
from melstate.recipes.models import read_acoustic
from melstate.recipes.train import train

SMALL = ("task.model.text_blocks=1", "task.model.blocks=1", "task.model.dim=32", "task.model.hidden=32")
SMALL += ("task.model.text_dim=32", "task.model.text_hidden=32", "task.warmup=1", "trainer.precision=32-true")


def test_it_trains_and_its_export_speaks(compose):
    options = ("ema=0.9", "trainer.max_steps=2", "trainer.val_check_interval=2", "data.joined=0")
    model = read_acoustic(train(compose("lina", *SMALL, *options)))
    assert model.config["group"] == 3 and model.config["mixer"] == "gla"
    # The corpus's levels travel with the weights, voicing's are 0 and 1, F0's lie around a speaker's.
    assert model.levels.low[-1] == 0 and model.levels.high[-1] == 1 and 4 < float(model.levels.low[-2]) < 6
    assert float((model.levels.low[:-2] + 11.5).abs().max()) > 0.1
    frames = list(model.stream([1, 9, 12, 2], generator=torch.Generator().manual_seed(0)))
    assert all(part.mel.isfinite().all() and part.f0 is not None for part in frames)


@pytest.fixture
def corpora(tmp_path, request):
    """A folder of clips and a speechocean762 of two speakers, of the same audio."""
    speech = request.path.parents[1] / "speech"
    clips = sorted((speech / "wavs").iterdir())
    (tmp_path / "ocean" / "train").mkdir(parents=True)
    rows = ["utterance\tspeaker\tgender\tage\ttext"]
    for number, speaker in enumerate(("0007", "0003", "0007")):
        shutil.copy(clips[number], tmp_path / "ocean" / "train" / f"{number}.ogg")
        rows.append(f"{number}\t{speaker}\tm\t6\tWE CALL IT BEAR")
    (tmp_path / "ocean" / "train.tsv").write_text("\n".join(rows))
    return [
        {"folder": str(speech), "speaker": "amy", "repeat": 2, "dev_prompts": 2},
        {"folder": str(tmp_path / "ocean"), "reader": "speechocean762", "dev_prompts": 0},
    ]


def test_corpora_are_read_together(corpora, speech_cache):
    data = AcousticData(corpora, cache=str(speech_cache), batch_size=2, prepare_workers=1)
    assert data.speakers == ["amy", "speechocean762-0003", "speechocean762-0007"]
    data.prepare_data()
    data.setup()
    amy = [clip for clip in data.train if clip.speaker == 0]
    assert len(amy) == 8 and len({clip.id for clip in amy}) == 4 and len(data.dev) == 2
    assert amy[0].features.mel is amy[4].features.mel, "a repeated clip is held once"
    others = [clip for clip in data.train if clip.speaker]
    assert [clip.speaker for clip in others] == [2, 1, 2]
    plain = AcousticData(corpora[1:], cache=str(speech_cache), batch_size=2)
    assert plain.utterances()[0][0].text == "We call it bear."
    assert int(data.source().batch(0).speakers.max()) <= 2


def test_readers_that_are_not_there_are_named(corpora):
    corpora[1]["reader"] = "librivox"
    with pytest.raises(ValueError, match="reader must be one of .*, got 'librivox'"):
        AcousticData(corpora, cache="unused", batch_size=2).utterances()


@pytest.mark.parametrize(
    "choice",
    [["experiment=lina", "corpus=many"], ["experiment=lina", "corpus=many_ljspeech"], ["experiment=lina_distilled"]],
)
def test_the_corpora_of_many_speakers_are_configured(choice):
    from hydra import compose, initialize_config_module

    with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        config = compose("train", choice)
    assert config.task.model.speakers == config.corpus.speakers > 100 and config.corpus.corrections
    task = instantiate(config.task, _convert_="all")
    assert sum(p.numel() for p in task.model.parameters()) <= 7_000_000
    assert {"kathleen", "speechocean762"} <= {Path(folder["folder"]).name for folder in config.corpus.folders}


def test_limits_come_from_the_corpus(compose):
    data = instantiate(compose("lina").data, _convert_="all")
    data.prepare_data()
    data.setup()
    task = instantiate(compose("lina", *SMALL).task, _convert_="all")
    task.fit_statistics(data.train)
    mels = np.concatenate([clip.features.mel for clip in data.train], 1)
    levels = task.model.levels.quantise(torch.from_numpy(np.pad(mels.T, [(0, 0), (0, 2)])))[:, :80]
    clipped = (levels == 0) & (torch.from_numpy(mels.T) < task.model.levels.low[:80])
    assert 0.003 < float(clipped.float().mean()) < 0.008
    rates = task.model.to_mel.bias.view(3, 80, 16)[0].exp()
    torch.testing.assert_close(rates.sum(1), torch.ones(80), atol=2e-3, rtol=0)
    torch.testing.assert_close(rates[5, 3], (levels[:, 5] == 3).float().mean().clamp(min=1e-4), atol=1e-6, rtol=1e-4)
