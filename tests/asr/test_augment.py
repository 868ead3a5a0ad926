"""Noise as loud as said, rooms that ring as long as said, tones within their bounds, masks that hide what they may."""

import numpy as np
import pytest
import torch

from melstate.asr.augment import (
    SpecAugment,
    add_noise,
    at_level,
    coloured_noise,
    knocks,
    level,
    random_tone,
    reverberate,
)
from melstate.asr.features import SPEECH, perturbed_log_mel


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_with_frequency_as_asked(slope, rng):
    noise = coloured_noise(rng, 1 << 16, slope)
    assert noise.dtype == np.float32 and np.mean(noise**2) == pytest.approx(1, rel=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [np.log2(power[k : 2 * k].mean()) for k in (512, 1024, 2048, 4096, 8192)]
    assert np.polyfit(range(5), octaves, 1)[0] == pytest.approx(-slope, abs=0.1)


@pytest.mark.parametrize("samples", [0, 1, 200_000])
def test_noise_of_any_length(samples, rng):
    noise = coloured_noise(rng, samples, 1.0)
    assert noise.shape == (samples,) and np.isfinite(noise).all()


@pytest.mark.parametrize("decibels", [-3.0, 0.0, 20.0])
def test_noise_is_added_so_much_below_speech(decibels, rng):
    speech, noise = (rng.standard_normal(16000).astype(np.float32) * gain for gain in (0.05, 3.0))
    added = add_noise(speech, noise, decibels) - speech
    assert 10 * np.log10(level(speech) / level(added)) == pytest.approx(decibels, abs=0.01)


def test_levels(rng):
    half = np.concatenate([np.zeros(16000), 0.1 * rng.standard_normal(16000)]).astype(np.float32)
    assert 10 * np.log10(level(half)) == pytest.approx(-20, abs=0.3)  # pauses do not count
    assert 10 * np.log10(level(at_level(half, -26.0))) == pytest.approx(-26, abs=0.01)
    silence = np.zeros(400, np.float32)
    assert level(silence) == 0 and np.array_equal(at_level(silence, -26.0), silence) and level(silence[:0]) == 0


def test_a_room_keeps_the_direct_sound_and_rings_as_long_as_asked(rng):
    click = np.zeros(16000, np.float32)
    click[1000] = 0.5
    heard = reverberate(rng, click, seconds=0.4, ratio=6.0, sample_rate=16000)
    assert len(heard) == 16000 and np.abs(heard[:999]).max() < 1e-6 and heard[1000] == pytest.approx(0.5, abs=1e-5)
    tail = heard[1001:]
    assert 10 * np.log10(0.25 / np.square(tail).sum()) == pytest.approx(6.0, abs=0.5)
    early, late = (np.square(tail[at : at + 800]).mean() for at in (0, 3200))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / 0.4, abs=3)  # half of the time, half of the 60 dB
    assert np.abs(tail[6400:]).max() < 1e-6


def test_knocks_come_as_often_as_asked_and_die_away_in_silence(rng):
    minute = 60 * 16000
    sounds = knocks(rng, minute, 3.0, 16000)
    assert sounds.dtype == np.float32 and 0.3 < np.abs(sounds).max() < 2.0
    loud = np.abs(sounds).reshape(-1, 160).max(1) > 1e-3
    begun = int((loud[1:] & ~loud[:-1]).sum())
    assert 120 <= begun <= 200  # 180 are expected; a few fall into one another
    assert loud.mean() < 0.35
    assert not knocks(rng, minute, 0.0, 16000).any() and knocks(rng, 0, 3.0, 16000).shape == (0,)


def test_tones_stay_within_their_bounds_and_change_slowly():
    tones = np.stack([random_tone(np.random.default_rng(seed), 80, 12.0) for seed in range(200)])
    bound = 12.0 * np.log(10) / 20
    assert tones.shape == (200, 80) and tones.dtype == np.float32
    assert np.abs(tones).max() <= bound and np.abs(tones).max() > 0.9 * bound
    bends = np.abs(np.diff(tones, 2, axis=1)) > 1e-5
    assert bends.sum(1).max() <= 10  # straight between at most five points, each of which two bands may stand around
    assert np.abs(tones.mean()) < 0.1 and (tones.std(0) > 0.3).all()
    assert not random_tone(np.random.default_rng(0), 80, 0.0).any()


def test_a_tone_amplifies_the_features():
    audio, tone = torch.randn(4000) * 0.1, torch.linspace(-1, 1, 80)
    plain = perturbed_log_mel(audio, SPEECH)
    torch.testing.assert_close(perturbed_log_mel(audio, SPEECH, tone=tone), plain + tone)
    bare = torch.tensor(SPEECH.floor).log()
    assert torch.all(perturbed_log_mel(torch.zeros(800), SPEECH, tone=-tone.abs()) == bare)  # nothing below the floor


def test_masks_hide_whole_bands_and_stretches_within_what_is_there():
    torch.manual_seed(0)
    mask, lengths = (
        SpecAugment(bands=2, band_width=20, stretches=8, stretch_width=30, most=0.3),
        torch.tensor([400, 90]),
    )
    hidden = mask(torch.ones(2, 400, 80), lengths) == 0
    for row, length in zip(hidden, lengths.tolist(), strict=True):
        stretches, bands = row.all(1), row.all(0)
        assert (row == (stretches[:, None] | bands)).all()
        assert 0 < stretches.sum() <= 0.3 * length + 8 and not stretches[length:].any()
        assert bands.sum() <= 2 * 21
    assert not (SpecAugment(0, 0, 0, 0)(torch.ones(1, 9, 4)) == 0).any()
