"""Words cut out of sentences: each is its own sound, and the folder is a corpus that training reads."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from melstate.recipes import cut_words
from melstate.recipes.cut_words import single_words
from melstate.recipes.data.clips import Clip, place_words
from melstate.recipes.data.recordings import Recording, read_ljspeech_recordings
from melstate.recipes.data.waveforms import Waveform
from melstate.vocoders import wav

RATE, EDGE, GAP = 1000, 50, 20


def clip(name, text, seconds, placed=True):
    """Words of so many seconds with gaps of silence between them; the samples of word k are 100 · (k + 1)."""
    spoken, times, place = [], [], 0.0
    for number, length in enumerate(seconds):
        spoken += [np.full(round(length * RATE), 100 * (number + 1)), np.zeros(GAP)]
        times.append((place, place + length))
        place += length + GAP / RATE
    speech = np.concatenate(spoken[:-1]).astype(np.int16)
    audio = np.pad(speech, EDGE)
    pieces = [[number] for number in range(len(seconds))]
    words = place_words(np.array(times), RATE, len(speech), pieces, pieces) if placed else None
    ids = tuple(range(len(seconds)))
    recording = Recording(name, Path(name), text, "someone")
    return Clip(Waveform(recording, audio, EDGE, EDGE + len(speech)), ids, ids, text, 1.0, words)


def test_words_are_cut_wherever_they_are_said():
    found = dict(single_words([clip("a", "six is not six", [0.3, 0.2, 0.25, 0.4])], ["six", "not"], RATE))
    assert list(found) == ["six-a-0", "not-a-2", "six-a-3"]
    for name, value, length in (("six-a-0", 100, 300), ("not-a-2", 300, 250), ("six-a-3", 400, 400)):
        speech = found[name].waveform.speech
        assert found[name].text == name.split("-")[0] and (speech == value).sum() == length
        assert set(speech.tolist()) <= {0, value} and len(speech) <= length + 2 * GAP


def test_what_cannot_be_a_single_word_is_left_out():
    short, long, fits = (clip(name, "go six", [0.2, length]) for name, length in (("s", 0.1), ("l", 1.6), ("f", 0.2)))
    alone, unplaced = clip("one", "six", [0.3]), clip("u", "go six", [0.3, 0.3], placed=False)
    assert [name for name, _ in single_words([short, long, fits, alone, unplaced], ["six"], RATE)] == ["six-f-1"]


def test_frequent_words_are_cut_so_often_at_most():
    clips = [clip(str(n), "go six", [0.2, 0.2]) for n in range(5)]
    names = [name for name, _ in single_words(clips, ["six", "go"], RATE, most=2)]
    assert names == ["go-0-0", "six-0-1", "go-1-0", "six-1-1"]


@pytest.fixture
def run(monkeypatch):
    """What a training run has learned from."""

    def of(*clips):
        data = SimpleNamespace(train=list(clips), mel=SimpleNamespace(sample_rate=RATE))
        monkeypatch.setattr(cut_words, "run_data", lambda path: data)

    return of


def test_the_folder_is_a_corpus(run, tmp_path, capsys):
    run(clip("a", "six is not six", [0.3, 0.2, 0.25, 0.4]))
    (tmp_path / "words").write_text("six\nseven\n")
    argv = [str(tmp_path / "cut"), "--run", "any", "--words", str(tmp_path / "words")]
    assert cut_words.main(argv) == 0
    assert "2 clips of 2 words" in capsys.readouterr().out
    made = read_ljspeech_recordings(tmp_path / "cut")
    assert not made.problems and [r.text for r in made.recordings] == ["six", "six"]
    samples, rate = wav.read(made.recordings[0].path)
    assert rate == RATE and samples.max() == pytest.approx(100 / 32768, abs=1e-6)


def test_runs_that_do_not_say_where_words_are_are_refused(run, tmp_path, capsys):
    (tmp_path / "words").write_text("six\n")
    argv = [str(tmp_path / "cut"), "--run", str(tmp_path), "--words", str(tmp_path / "words")]
    assert cut_words.main(argv) == 1
    assert capsys.readouterr().err.startswith("cut-words: ")
    run(clip("a", "go six", [0.2, 0.2], placed=False))
    assert cut_words.main(argv) == 1
    assert "recognizer_shifted" in capsys.readouterr().err and not (tmp_path / "cut").exists()
