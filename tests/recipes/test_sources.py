"""Sources: readers, thinning, what is held out."""

from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.recipes.data.batches import bandwidths
from melstate.recipes.data.module import VocoderData
from melstate.recipes.data.sources import Source
from melstate.vocoders import wav

SPEECH = Path(__file__).parents[1] / "speech"


@pytest.fixture(scope="module")
def ocean(tmp_path_factory):
    """A corpus in speechocean762's layout: three speakers of five clips at 16 kHz, and one more speaker held out."""
    folder = tmp_path_factory.mktemp("ocean")
    noise = np.random.default_rng(0)
    for part, speakers in (("train", "abc"), ("dev", "d")):
        rows = ["utterance\tspeaker\tgender\tage\ttext"]
        (folder / part).mkdir()
        for speaker in speakers:
            for number in range(5):
                rows.append(f"{speaker}{number}\t{speaker}\tm\t9\tTEXT {number}")
                wav.write(folder / part / f"{speaker}{number}.ogg", 0.1 * noise.standard_normal(8000), 16000)
        (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_clips_are_thinned_speaker_by_speaker_and_the_same_each_time(ocean):
    source = Source(str(ocean), reader="speechocean762", per_speaker=2, dev_prompts=0, bandwidth=7600.0)
    train, dev, problems = source.read(3, 0, {"Text 1.": "ONE"})
    assert not dev and not problems
    assert {row.speaker for row in train} == {f"speechocean762-{name}" for name in "abc"} and len(train) == 6
    assert all(row.bandwidth == 7600 for row in train) and not any(row.text == "Text 1." for row in train)
    assert source.read(3, 0, {})[0] != source.read(3, 1, {})[0]
    assert [row.id for row in source.read(3, 0, {})[0]] == [row.id for row in train]


def test_prompts_are_held_out_before_clips_are_thinned(ocean):
    thin = Source(str(ocean), "all", "speechocean762", per_speaker=1)
    whole = Source(str(ocean), "all", "speechocean762")
    (few, dev, _), (many, same, _) = thin.read(2, 0, {}), whole.read(2, 0, {})
    assert dev == same and len(dev) == 6 and len(many) == 9 and len(few) == 1
    assert all(row.bandwidth == inf for row in many)


def test_a_held_out_corpus_is_all_development(ocean):
    train, dev, _ = Source(str(ocean), reader="speechocean762-dev", held_out=True, per_speaker=3).read(2, 0, {})
    assert not train and len(dev) == 3


def test_files_need_no_transcripts(tmp_path):
    train, dev, _ = Source(str(SPEECH / "wavs"), "anybody", "files").read(2, 0, {})
    assert len(train) == 4 and len(dev) == 2 and {row.speaker for row in train} == {"anybody"}
    with pytest.raises(ValueError, match=r"holds no \.wav"):
        Source(str(tmp_path), reader="files").read(0, 0, {})
    with pytest.raises(FileNotFoundError):
        Source(str(tmp_path / "none"), reader="files").read(0, 0, {})


def test_unknown_readers_and_counts_are_refused():
    with pytest.raises(ValueError, match="reader must be one of ljspeech, files, .* got 'tedlium'"):
        Source("x", reader="tedlium")
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        Source("x", per_speaker=0)


def test_corpora_of_several_rates_are_mixed(ocean, tmp_path):
    corpora = [
        {"folder": str(SPEECH), "speaker": "test", "dev_prompts": 2},
        {"folder": str(ocean), "reader": "speechocean762", "per_speaker": 1, "bandwidth": 7600},
        {"folder": str(ocean), "reader": "speechocean762-dev", "held_out": True, "per_speaker": 1, "bandwidth": 7600},
    ]
    data = VocoderData(corpora, str(tmp_path), 12, frames=16, dev_prompts=0, prepare_workers=1)
    data.prepare_data()
    data.setup()
    assert data.speakers == ["test", *(f"speechocean762-{name}" for name in "abcd")]
    assert {clip.speaker for clip in data.train} == {0, 1, 2, 3} and data.dev[-1].speaker == 4
    batch = data.source().batch(0)
    assert set(batch.bandwidth.tolist()) == {7600.0, inf}
    assert {None if b.bandwidth is None else b.bandwidth.item() for b in data.val_dataloader()} == {None, 7600.0}
    assert bandwidths([clip for clip in data.train if clip.speaker == 0]) is None
    # Resampled audio is where its bandwidth says.
    resampled = next(clip for clip in data.train if clip.speaker == 1).features.audio.astype(np.float64)
    power = np.abs(np.fft.rfft(resampled)) ** 2
    cut = round(2 * 8200 / 22050 * (len(power) - 1))
    assert power[cut:].sum() < 1e-3 * power.sum()
    assert torch.isfinite(batch.mel).all()


def test_predicted_mels_come_instead_of_the_recordings_or_beside_them(tmp_path):
    def clips(**options):
        data = VocoderData([{"folder": str(SPEECH)}], str(tmp_path), 2, frames=16, dev_prompts=0, **options)
        data.prepare_data()
        data.setup()
        return data.train

    recorded = clips()
    for clip in recorded:
        np.save(tmp_path / f"{clip.id}.npy", np.full_like(clip.features.mel, -3.0))
    instead = clips(predicted_mels=str(tmp_path))
    assert [clip.id for clip in instead] == [clip.id for clip in recorded]
    assert all((clip.features.mel == -3).all() for clip in instead)
    both = clips(predicted_mels=str(tmp_path), recorded_too=True)
    assert sorted(clip.id for clip in both) == sorted(2 * [clip.id for clip in recorded])
    assert sum(bool((clip.features.mel == -3).all()) for clip in both) == len(recorded)
    np.save(tmp_path / f"{recorded[0].id}.npy", np.zeros((80, 3), np.float32))
    with pytest.raises(ValueError, match="write them anew"):
        clips(predicted_mels=str(tmp_path))
