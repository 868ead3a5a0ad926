"""Evaluation of recognisers: what is counted, on recordings and on sounds without speech."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from melstate.recipes import evaluate_recognizer as evaluation
from melstate.recipes.data.nonspeech import KINDS, nonspeech
from melstate.vocoders import wav

SPEECH = Path(__file__).parents[1] / "speech"


@pytest.mark.parametrize("kind", KINDS)
def test_sounds_are_levelled_finite_and_the_same_again(kind):
    audio = nonspeech(kind, 3.0, seed=1)
    assert audio.shape == (48000,) and audio.dtype == np.float32 and np.abs(audio).max() <= 1
    assert np.array_equal(audio, nonspeech(kind, 3.0, seed=1))
    rms = np.sqrt(np.mean(audio**2))
    assert rms == 0 if kind == "silence" else rms == pytest.approx(0.05, rel=0.3)
    assert len(nonspeech(kind, 0)) == 0


def test_unknown_sounds_are_named():
    with pytest.raises(ValueError, match="no sound 'rain'; there are silence, white"):
        nonspeech("rain", 1)


@pytest.fixture
def data(tmp_path):
    """Two speechocean762 speakers and two digit speakers, of the test clips."""
    clips = sorted((SPEECH / "wavs").glob("*.flac"))
    ocean, digits = tmp_path / "speechocean762", tmp_path / "digits"
    (ocean / "dev").mkdir(parents=True)
    rows = ["utterance\tspeaker\tgender\tage\ttext"]
    for number, clip in enumerate(clips[:3]):
        wav.write(ocean / "dev" / f"{number}.ogg", *wav.read(clip))
        rows.append(f"{number}\t{number // 2}\tf\t30\tONE TWO 3")
    (ocean / "dev.tsv").write_text("\n".join(rows))
    digits.mkdir()
    for name in ("1_ann_0", "1_ann_7", "2_bo_0"):
        shutil.copy(clips[0], digits / f"{name}.flac")
    return tmp_path


def hears(text, in_noise=""):
    """A recogniser that hears the same in everything read, and something else in 16 kHz sounds."""
    return lambda *models, like=None: lambda samples, rate: text if rate == 22050 else in_noise


def run(data, monkeypatch, load, *options):
    monkeypatch.setattr(evaluation, "load", load)
    target = data / "out" / "result.json"
    baseline = () if "--baseline" in options else ("--baseline", "none")
    assert evaluation.main([str(data), *baseline, "--json", str(target), *options]) == 0
    return json.loads(target.read_text())


def test_errors_are_counted_by_set_and_sound(data, monkeypatch, capsys):
    load = hears("one two three", "um")
    result = run(data, monkeypatch, load, "--model", "x", "--minutes", "0.1")
    sets = result["sets"]["melstate"]
    assert sets["speechocean762 dev"]["wer"]["value"] == 0 and sets["speechocean762 dev"]["clips"] == 3
    digits = sets["digits test"]
    assert (digits["words"], digits["insertions"], digits["clips"], digits["speakers"]) == (2, 4, 2, 2)
    assert digits["interval_over"] == "clips" and digits["wer"]["value"] == 2
    assert result["words_per_minute"]["melstate"] == {kind: pytest.approx(10) for kind in KINDS}
    assert (
        result["about"]["command"].startswith("melstate evaluate-recognizer ")
        and "--minutes" in result["about"]["command"]
    )
    shown = capsys.readouterr().out
    assert "speechocean762 dev" in shown and "music 10.0" in shown


def test_speakers_left_out_are_heard_by_their_own_model(data, monkeypatch):
    words = {"model-a": "one", "model-b": "nine"}
    result = run(
        data,
        monkeypatch,
        lambda *models, like=None: lambda *_: words[models[0]],
        "--held-out",
        "ann=model-a",
        "--held-out",
        "bo=model-b",
    )
    left_out = result["sets"]["melstate"]["digits left out"]
    assert (left_out["clips"], left_out["substitutions"], left_out["words"]) == (3, 1, 3)
    assert list(result["sets"]["melstate"]) == ["digits left out"] and not result["words_per_minute"]


def test_several_models_of_one_speaker_are_one_heard_as_another_is(data, monkeypatch):
    loaded = []

    def load(*models, like=None):
        loaded.append((models, like))
        return lambda *_: "one"

    pairs = ("--held-out", "ann=a", "--held-out", "bo=b", "--held-out", "ann=c")
    result = run(data, monkeypatch, load, *pairs, "--like", "default")
    assert loaded == [(("a", "c"), "default"), (("b",), "default")]
    assert result["sets"]["melstate"]["digits left out"]["clips"] == 3 and result["about"]["like"] == "default"


def test_silence_comes_before_digits_of_one_set(data, monkeypatch):
    lengths = []

    def load(*_, **__):
        return lambda samples, rate: lengths.append((len(samples) / rate, np.abs(samples[: rate // 10]).max())) or "one"

    monkeypatch.setattr(evaluation, "PAUSES", (0.0, 0.5))
    sets = run(data, monkeypatch, load, "--model", "x", "--minutes", "0")["sets"]["melstate"]
    assert sets["digits after silence"]["clips"] == sets["digits test"]["clips"] == 2
    (first, _), (second, _), (same, loud), (later, silent) = lengths[3:]
    assert same == first and later == pytest.approx(second + 0.5) and loud > 0 and silent == 0


def test_a_baseline_reads_the_same(data, monkeypatch):
    read = []

    class Reader:
        def __init__(self, cache):
            assert cache is None

        def read(self, samples, rate):
            read.append(len(samples) / rate)
            return "one"

    monkeypatch.setattr("melstate.recipes.reader.Reader", Reader)
    options = ["--limit", "1", "--cache", "", "--baseline", "pocketsphinx"]
    result = run(data, monkeypatch, hears("one"), "--model", "x", "--minutes", "0.5", *options)
    theirs, ours = result["sets"]["pocketsphinx"], result["sets"]["melstate"]
    for part in ours:
        assert theirs[part]["wer"] == ours[part]["wer"] and theirs[part]["clips"] == ours[part]["clips"] == 2
    # Two clips of each set, then half a minute of every sound in pieces of ten seconds.
    assert read[6:] == [10.0] * 3 * len(KINDS)
    assert result["words_per_minute"]["pocketsphinx"]["music"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to evaluate"),
        (["--held-out", "ann"], "SPEAKER=MODEL"),
        (["--held-out", "zoe=x"], "no speaker 'digits-zoe'; there are digits-ann, digits-bo"),
    ],
)
def test_usage_errors(data, options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluation.main([str(data), *options])
    assert stop.value.code == 2 and message in capsys.readouterr().err
