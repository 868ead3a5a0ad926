"""Features: levels, frame counts, pitch on a known tone, the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.recipes.data.corpus import Utterance, read_ljspeech
from melstate.recipes.data.features import FeatureCache, FeatureConfig, extract, pitch
from melstate.vocoders import wav
from melstate.vocoders.mel import log_mel

SPEECH = Path(__file__).parents[1] / "speech"
CONFIG = FeatureConfig()


def test_features_of_a_clip_fit_together():
    clip = read_ljspeech(SPEECH).utterances[0]
    features = extract(clip.audio, CONFIG)
    frames = features.mel.shape[1]
    assert features.mel.shape[0] == 80 and len(features.audio) == frames * 256
    assert len(features.log_f0) == len(features.voiced) == frames
    assert 0.2 < features.voiced.mean() < 1 and np.isfinite(features.log_f0).all()
    audio = features.audio.astype(np.float32) / 32767
    assert np.abs(audio).max() <= 0.951
    np.testing.assert_array_equal(log_mel(torch.from_numpy(audio), CONFIG.mel).numpy(), features.mel)
    power = audio.reshape(-1, 256).__pow__(2).mean(1)
    spoken = power[power > power.max() * 1e-3].mean()
    assert abs(10 * np.log10(spoken) - CONFIG.level) < 1.5


def test_pitch_is_the_tones_and_sits_on_the_mel_frame():
    rate = CONFIG.mel.sample_rate
    time = np.arange(rate) / rate
    # A sweep whose frequency at a frame's centre is known: 150 to 250 Hz in a second.
    phase = 2 * np.pi * (150 * time + 50 * time**2)
    audio = sum(np.sin(k * phase) / k for k in range(1, 9)).astype(np.float32) * 0.2
    log_f0, voiced = pitch(audio, CONFIG)
    frames = rate // 256
    assert len(log_f0) == frames
    expected = 150 + 100 * (np.arange(frames) * 256 + 128) / rate
    middle = slice(4, frames - 4)
    assert voiced[middle].min() == 1
    cents = 1200 * (log_f0[middle] - np.log(expected[middle])) / np.log(2)
    assert np.abs(np.median(cents)) < 5 and np.abs(cents).max() < 35


def test_silence_and_shortness_are_named(tmp_path):
    wav.write(tmp_path / "silent.wav", np.zeros(22050, np.float32), 22050)
    with pytest.raises(ValueError, match=r"silent\.wav: silent"):
        extract(tmp_path / "silent.wav", CONFIG)
    wav.write(tmp_path / "short.wav", np.sin(np.arange(1500)).astype(np.float32), 22050)
    with pytest.raises(ValueError, match=r"short\.wav: 5 frames"):
        extract(tmp_path / "short.wav", CONFIG)
    wav.write(tmp_path / "long.wav", np.sin(np.arange(22050 * 2)).astype(np.float32), 22050)
    with pytest.raises(ValueError, match=r"long\.wav: 2\.0 s long, at most 1 s"):
        extract(tmp_path / "long.wav", FeatureConfig(max_seconds=1.0))


def test_cache_computes_once_and_reports_what_it_cannot(tmp_path):
    good = read_ljspeech(SPEECH).utterances[:1]
    (tmp_path / "bad.wav").write_bytes(b"RIFF not audio")
    bad = Utterance("bad", tmp_path / "bad.wav", "x", "s")
    cache = FeatureCache(tmp_path / "cache", CONFIG)
    problems = cache.prepare([*good, bad])
    assert len(problems) == 1 and "bad.wav" in problems[0]
    stamp = cache.path(good[0]).stat().st_mtime_ns
    assert cache.prepare(good) == [] and cache.path(good[0]).stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(cache.load(good[0]).mel, extract(good[0].audio, CONFIG).mel)
    assert FeatureCache(tmp_path / "cache", FeatureConfig(level=-20)).folder != cache.folder
