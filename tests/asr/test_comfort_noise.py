"""What is heard before a recording and after it: noise under its own where it is short, near silence otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from melstate.asr.comfort_noise import FAINT, PIECE, comfort_noise
from melstate.asr.listener import Listener


def deviation(audio):
    return float(np.sqrt(np.mean(np.square(audio))))


@pytest.mark.parametrize("level", [0.0, 1e-5, 3e-3, 0.1])
def test_it_is_fourteen_decibels_under_the_quietest_part(level):
    rng = np.random.default_rng(1)
    loud = np.sin(np.arange(4000) / 7)
    audio = np.concatenate([loud, level * rng.standard_normal(2 * PIECE), loud]).astype(np.float32)
    noise = comfort_noise(audio, 4800)
    assert noise.shape == (4800,) and noise.dtype == np.float32
    # The quietest whole piece varies as 320 samples of noise do.
    assert deviation(noise) == pytest.approx(max(FAINT, level / 5), rel=0.15)
    assert np.array_equal(noise, comfort_noise(audio, 4800))


@pytest.mark.parametrize("samples", [0, 1, PIECE - 1])
def test_too_little_audio_counts_as_silence(samples):
    assert deviation(comfort_noise(np.ones(samples, np.float32), 4800)) == pytest.approx(FAINT, rel=0.05)
    assert len(comfort_noise(np.ones(samples, np.float32), 0)) == 0


class Kept(Listener):
    """Keeps the samples that the encoder gets."""

    partial = ""

    def _hear(self, samples, *, final):
        self.samples = np.concatenate([getattr(self, "samples", samples[:0]), samples])
        return []

    def _follow(self, heard):
        raise AssertionError

    def _rest(self):
        return []


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("size", [1, 37, 10**6])
def test_short_recordings_are_heard_in_noise_and_longer_ones_in_silence(recognizer, rate, size):
    decoding = replace(recognizer.decoding, edge=0.2)
    noise = (0.05 * np.random.default_rng(2).standard_normal(rate)).astype(np.float32)
    edge = 3200  # samples of 16 kHz; a chunk of the recogniser is 6,400
    for samples, loud in [(rate // 8, True), (rate // 5 - 40, True), (rate // 5 + 40, False), (rate // 2, False)]:
        listener = Kept(recognizer.parts, rate, decoding)
        for start in range(0, samples, size):
            listener.feed(noise[start : min(start + size, samples)])
        listener.finish()
        heard = listener.samples
        assert len(heard) == 2 * edge + samples * 16000 // rate
        for part in (heard[:edge], heard[-edge:]):
            assert deviation(part) > 0.003 if loud else deviation(part) == pytest.approx(FAINT, rel=0.05)
        if rate == 16000:
            assert np.array_equal(heard[edge:-edge], noise[:samples])
