"""Decoded corpora: the samples as they were recorded, once decoded never again, and what was left out by name."""

from pathlib import Path

import numpy as np
import pytest

from melstate.recipes.data import waveforms
from melstate.recipes.data.recordings import Recording, read_ljspeech_recordings
from melstate.recipes.data.waveforms import load_waveforms, speech_bounds
from melstate.vocoders import wav

SPEECH = Path(__file__).parents[1] / "speech"


def test_clips_are_decoded_once_and_are_the_recordings(tmp_path, monkeypatch):
    recordings = list(read_ljspeech_recordings(SPEECH).recordings)
    loaded, problems = load_waveforms(recordings, 16000, tmp_path)
    assert [w.recording for w in loaded] == recordings and not problems
    for waveform in loaded:
        audio, _ = wav.read(waveform.recording.path, 16000)
        assert np.array_equal(waveform.audio, wav.to_int16(audio))
        assert 0 <= waveform.start < waveform.stop <= len(audio)
        assert (waveform.start, waveform.stop) == speech_bounds(np.asarray(waveform.audio), 16000)
    monkeypatch.setattr(waveforms.wav, "read", None)  # not needed again
    again, _ = load_waveforms(recordings, 16000, tmp_path)
    assert all(np.array_equal(a.audio, b.audio) and a[2:] == b[2:] for a, b in zip(loaded, again, strict=True))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_used_is_named(tmp_path):
    good = read_ljspeech_recordings(SPEECH).recordings[0]
    (tmp_path / "text.wav").write_text("not audio")
    bad = Recording("bad", tmp_path / "text.wav", "x", "s")
    loaded, problems = load_waveforms([bad, good], 16000, tmp_path / "cache")
    assert [w.recording.id for w in loaded] == [good.id] and "text.wav" in problems[0]
    none, problems = load_waveforms([good], 16000, tmp_path / "cache", max_seconds=0.5)
    assert none == [] and "more than 0.5 s" in problems[0]


def test_bounds_hold_the_loud_part():
    audio = np.zeros(16000, np.int16)
    audio[6400:9600] = (8000 * np.sin(np.arange(3200) / 5)).astype(np.int16)
    start, stop = speech_bounds(audio, 16000)
    assert start == pytest.approx(6400 - 1600, abs=320) and stop == pytest.approx(9600 + 1600, abs=320)
    assert speech_bounds(np.zeros(100, np.int16), 16000) == (0, 100)
