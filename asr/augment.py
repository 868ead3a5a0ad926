"""Augmentation for training: rooms, noises, other voices, and masks over features (SpecAugment).

Waveforms are changed with numpy and a generator of the caller's, so that a batch depends on its number alone; masks are
drawn by torch, which training reseeds for every batch. Tempo and pitch are changed in `features.perturbed_log_mel`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SILENT = 1e-7  # mean square under which a clip has no level to speak of


def level(audio: np.ndarray) -> float:
    """Mean square of the louder half of 20 ms pieces at 16 kHz: of speech, not of the pauses in it."""
    pieces = audio[: len(audio) // 320 * 320].reshape(-1, 320)
    if not len(pieces):
        return float(np.mean(np.square(audio))) if len(audio) else 0.0
    powers = np.sort(np.mean(np.square(pieces), axis=1))
    return float(powers[len(powers) // 2 :].mean())


def at_level(audio: np.ndarray, decibels: float) -> np.ndarray:
    """Scaled so that `level` is `decibels` under full scale; silence stays as it is."""
    power = level(audio)
    return audio if power < SILENT else audio * np.float32((10 ** (decibels / 10) / power) ** 0.5)


def coloured_noise(rng: np.random.Generator, samples: int, slope: float) -> np.ndarray:
    """Noise of mean square 1 whose power falls with frequency to the `slope`: 0 white, 1 pink, 2 brown.

    Long noises repeat after 2^17 samples; nobody learns eight seconds of noise by heart.
    """
    period = min(1 << 17, max(2, 1 << (max(1, samples) - 1).bit_length()))
    spectrum = rng.standard_normal((2, period // 2 + 1), dtype=np.float32)
    shape = np.maximum(np.arange(period // 2 + 1), period / 800) ** (-slope / 2)  # flat below 20 Hz
    noise = np.fft.irfft((spectrum[0] + 1j * spectrum[1]) * shape, period)
    noise = np.roll(noise / max(float(np.sqrt(np.mean(np.square(noise)))), 1e-9), int(rng.integers(period)))
    return np.resize(noise, samples).astype(np.float32)


def knocks(rng: np.random.Generator, samples: int, rate: float, sample_rate: int) -> np.ndarray:
    """Knocks, clicks and taps at random moments, about `rate` a second, the loudest near 1: resonances and bursts of
    noise that die away within 10 to 200 ms, silence between."""
    audio = np.zeros(samples, np.float32)
    for start in rng.integers(0, max(1, samples), int(rng.poisson(rate * samples / sample_rate))).tolist():
        fall = float(np.exp(rng.uniform(np.log(0.0015), np.log(0.03)))) * sample_rate  # samples until 1/e
        time = np.arange(min(int(7 * fall), samples - start), dtype=np.float32)
        if rng.random() < 0.5:
            pitch = float(np.exp(rng.uniform(np.log(100), np.log(0.4 * sample_rate))))
            sound = np.sin(2 * np.pi * pitch / sample_rate * time)
        else:
            sound = coloured_noise(rng, max(2, len(time)), rng.uniform(0, 2))[: len(time)] / 3
        audio[start : start + len(time)] += sound * np.exp(-time / fall) * 10 ** (rng.uniform(-20, 0) / 20)
    return audio


def reverberate(
    rng: np.random.Generator, audio: np.ndarray, seconds: float, ratio: float, sample_rate: int
) -> np.ndarray:
    """The audio with a tail of exponentially decaying noise after it, as long as the audio itself.

    Args:
        seconds: until the tail has fallen by 60 dB.
        ratio: dB of the direct sound over the whole tail.
    """
    from scipy.signal import oaconvolve

    length = max(2, int(seconds * sample_rate))
    tail = rng.standard_normal(length, dtype=np.float32) * 10 ** (-3 * np.arange(length, dtype=np.float32) / length)
    tail *= 10 ** (-ratio / 20) / np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    return oaconvolve(audio, tail)[: len(audio)].astype(np.float32)


def random_tone(rng: np.random.Generator, bands: int, decibels: float) -> np.ndarray:
    """How another microphone or room sounds: natural logs of each band's amplification (bands,) float32, straight lines
    between two to five points anywhere, each up to `decibels` up or down.

    Source: FilterAugment, linear type: Nam et al. 2022, arXiv:2110.03282.
    """
    places = np.sort(rng.uniform(0, bands - 1, int(rng.integers(2, 6))))
    gains = rng.uniform(-1, 1, len(places)) * decibels * np.log(10) / 20
    return np.interp(np.arange(bands), places, gains).astype(np.float32)


def add_noise(audio: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    """audio + noise, `decibels` quieter than the audio's speech."""
    power = max(level(noise), SILENT)
    return audio + noise * np.float32((max(level(audio), SILENT) / power) ** 0.5 * 10 ** (-decibels / 20))


@dataclass(frozen=True)
class SpecAugment:
    """Zeroes bands and stretches of normalised features (zero is their mean).

    Attributes:
        bands, band_width: masks over frequency, and the most bands of each.
        stretches, stretch_width: masks over time, and the most frames of each.
        most: the largest fraction of a row's frames under time masks.
    Source: Park et al. 2019, arXiv:1904.08779; Park et al. 2020, arXiv:1912.05533 for `most`.
    """

    bands: int = 2
    band_width: int = 20
    stretches: int = 8
    stretch_width: int = 30
    most: float = 0.3

    def __call__(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, M) → the same with masks, drawn by torch's generator for x's device."""
        batch, time, width = x.shape
        frames = x.new_full((batch,), time) if lengths is None else lengths.to(x.dtype)
        hidden = x.new_zeros(batch, time, width, dtype=torch.bool)
        band, frame = torch.arange(width, device=x.device), torch.arange(time, device=x.device)
        for _ in range(self.bands):
            size = torch.rand(batch, device=x.device) * self.band_width
            start = torch.rand(batch, device=x.device) * (width - size)
            hidden |= ((band >= start[:, None]) & (band < (start + size)[:, None]))[:, None]
        longest = (frames * self.most / max(1, self.stretches)).clamp(max=self.stretch_width)
        for _ in range(self.stretches):
            size = torch.rand(batch, device=x.device) * longest
            start = torch.rand(batch, device=x.device) * (frames - size)
            hidden |= ((frame >= start[:, None]) & (frame < (start + size)[:, None]))[..., None]
        return x.masked_fill(hidden, 0)
