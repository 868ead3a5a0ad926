"""Speech that nobody spoke becomes a corpus that training reads; whatever cannot speak says so."""

import numpy as np
import pytest

from melstate.asr.backoff import BackoffModel, encode
from melstate.recipes import synthetic_speech
from melstate.recipes.data.recordings import read_ljspeech_recordings
from melstate.recipes.synthetic_speech import LONGEST, SHORTEST, by_command, random_sentence
from melstate.vocoders import wav

WORDS = ["one", "two", "three"]


@pytest.fixture(scope="module")
def english():
    grams = {1: np.arange(1, 5)[:, None], 2: np.array([[2, 3], [3, 4]]), 3: np.zeros((0, 3), np.int64)}
    codes = {1: encode(np.log([0.2, 0.5, 0.2, 0.1])), 2: encode(np.log([0.9, 0.9])), 3: np.zeros(0, np.uint8)}
    return BackoffModel(WORDS, grams, codes)


def test_sentences_follow_the_model(english):
    rng = np.random.default_rng(0)
    sentences = [random_sentence(english, rng).split() for _ in range(200)]
    assert all(SHORTEST <= len(words) <= LONGEST and set(words) <= set(WORDS) for words in sentences)
    pairs = [pair for words in sentences for pair in zip(words, words[1:], strict=False)]
    after_one = [second for first, second in pairs if first == "one"]
    assert 0.85 < after_one.count("two") / len(after_one) < 0.99
    assert random_sentence(english, np.random.default_rng(1)) == random_sentence(english, np.random.default_rng(1))


def test_the_folder_is_a_corpus(english, tmp_path, capsys):
    np.savez(tmp_path / "english.npz", **english.to_arrays())
    argv = [str(tmp_path / "made"), "--english", str(tmp_path / "english.npz"), "--sentences", "3"]
    assert synthetic_speech.main(argv) == 0
    assert "3 sentences of 2 speakers" in capsys.readouterr().out
    made = read_ljspeech_recordings(tmp_path / "made")
    assert not made.problems and len(made.recordings) == 3
    for recording in made.recordings:
        samples, _ = wav.read(recording.path)
        assert len(recording.text.split()) >= SHORTEST and np.abs(samples).max() == pytest.approx(0.5, abs=0.01)
    assert synthetic_speech.main([*argv, "--voices"]) == 1
    assert "nobody speaks" in capsys.readouterr().err
    assert synthetic_speech.main([*argv, "--voices", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().err


def test_every_speaker_says_every_line(tmp_path, monkeypatch):
    def speak(text, rng):
        return np.full(2205 * len(text), 0.1, np.float32), 22050

    monkeypatch.setattr(synthetic_speech, "own_speaker", lambda name, model=None: speak)
    (tmp_path / "texts").write_text("Zero.\n\nseven\n")
    argv = [str(tmp_path / "made"), "--texts", str(tmp_path / "texts"), "--voices", "a", "b", "--sentences", "5"]
    assert synthetic_speech.main([*argv, "--rate", "8000"]) == 0
    made = read_ljspeech_recordings(tmp_path / "made").recordings
    assert [(r.id[0], r.text) for r in sorted(made, key=lambda r: r.id[-1])] == [
        ("a", "zero"),
        ("b", "zero"),
        ("a", "seven"),
        ("b", "seven"),
        ("a", "zero"),
    ]
    samples, rate = wav.read(made[0].path)
    assert rate == 8000 and len(samples) == pytest.approx(3200, abs=2)
    assert synthetic_speech.main([*argv, "--full-stops"]) == 0
    said = read_ljspeech_recordings(tmp_path / "made").recordings[0]
    assert said.text == "zero." and len(wav.read(said.path)[0]) == 2205 * 5


def test_files_without_words_are_refused(tmp_path, capsys):
    (tmp_path / "texts").write_text("\n...\n")
    assert synthetic_speech.main([str(tmp_path / "made"), "--texts", str(tmp_path / "texts")]) == 1
    assert "no line with words" in capsys.readouterr().err
    assert synthetic_speech.main([str(tmp_path / "made"), "--texts", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


def test_engines_that_are_missing_or_fail_say_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="apt install flite"):
        synthetic_speech.speakers([], ["flite"])
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="false failed"):
        by_command("false")


def test_a_command_speaks_through_its_file(tmp_path):
    wav.write(tmp_path / "said.wav", np.full(800, 0.25, np.float32), 8000)
    samples, rate = by_command("cp", str(tmp_path / "said.wav"))
    assert rate == 8000 and len(samples) == 800
