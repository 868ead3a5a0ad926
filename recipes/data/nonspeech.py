"""Sounds that nobody speaks in, for finding words that a recogniser invents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from melstate.asr.augment import coloured_noise

LEVEL = 0.05  # RMS of full scale


def _silence(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    return np.zeros(samples)


def _white(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    return coloured_noise(rng, samples, 0.0)


def _pink(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Pink noise that swells and fades every few seconds, as wind or traffic does."""
    swell = np.interp(
        np.arange(samples) / rate, np.arange(0, samples / rate + 4, 2.0), _uniform(rng, samples / rate / 2)
    )
    return coloured_noise(rng, samples, 1.0) * swell


def _uniform(rng: np.random.Generator, count: float) -> np.ndarray:
    return rng.uniform(0.1, 1.0, int(np.ceil(count)) + 2)


def _hum(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    time = np.arange(samples) / rate
    partials = [np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in range(1, 12)]
    return np.sum(partials, axis=0)


def _clicks(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Knocks, about two a second, each a damped resonance."""
    audio = np.zeros(samples)
    for start in np.flatnonzero(rng.random(samples) < 2 / rate).tolist():
        time = np.arange(min(rate // 10, samples - start)) / rate
        audio[start : start + len(time)] += np.exp(-60 * time) * np.sin(2 * np.pi * rng.uniform(300, 3000) * time)
    return audio


def _typing(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """The same knocks in a room with noise, 40 dB below their peaks."""
    return _clicks(rng, samples, rate) + 0.01 * coloured_noise(rng, samples, 1.0)


def _music(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Chords of plucked tones with harmonics, and a melody over them, two notes a second."""
    audio = np.zeros(samples)
    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
    for start in range(0, samples, rate // 2):
        time = np.arange(min(rate, samples - start)) / rate
        chord = start // rate % 4
        for pitch in (*scale[[chord, chord + 2, chord + 4]], 2 * rng.choice(scale)):
            tone = np.sum([np.sin(2 * np.pi * pitch * k * time) / k**1.5 for k in range(1, 7)], axis=0)
            audio[start : start + len(time)] += np.exp(-3 * time) * tone
    return audio


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "silence": _silence,
    "white": _white,
    "pink": _pink,
    "hum": _hum,
    "clicks": _clicks,
    "typing": _typing,
    "music": _music,
}


def nonspeech(kind: str, seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """(seconds · rate,) float32 of one of `KINDS`, at an RMS of 0.05 unless silent. Raises ValueError: unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"no sound '{kind}'; there are {', '.join(KINDS)}")
    audio = np.asarray(KINDS[kind](np.random.default_rng(seed), round(seconds * rate), rate), np.float32)
    rms = float(np.sqrt(np.mean(np.square(audio)))) if len(audio) else 0.0
    return np.clip(audio * (LEVEL / rms), -1, 1) if rms > 0 else audio
