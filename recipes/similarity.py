"""How alike two voices sound to a speaker encoder: cosines between embeddings, with intervals over sentences.

The encoder is Resemblyzer's (Wan et al. 2018, arXiv:1710.10467) where that package is installed, for evaluation only,
or our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melstate.vocoders import wav

Embed = Callable[[np.ndarray, int], np.ndarray]  # samples, sample rate → unit vector
RESEMBLYZER, THEIR_RATE = "resemblyzer", 16000


class Interval(NamedTuple):
    """A mean over sentences and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Similarity(NamedTuple):
    """Cosine to the target speaker: of the base voice, of the clone, of the gain, and of the target's other clips."""

    before: Interval
    after: Interval
    gain: Interval
    own: Interval


def encoder(choice: str | Path) -> Embed:
    """`resemblyzer`, or the path of a speaker encoder of ours (.safetensors).

    Raises: ValueError: Resemblyzer is not installed, or the file holds something else. FileNotFoundError: no such file.
    """
    if str(choice) == RESEMBLYZER:
        try:
            from resemblyzer import VoiceEncoder, preprocess_wav
        except ImportError as error:
            raise ValueError(
                "resemblyzer is not installed: pip install resemblyzer, or give an encoder file"
            ) from error
        theirs = VoiceEncoder("cpu", verbose=False)
        # It resamples by a call that newer librosas do not know: audio comes to it at its own rate.
        return lambda samples, rate: theirs.embed_utterance(preprocess_wav(wav.resample(samples, rate, THEIR_RATE)))

    from melstate.asr.speaker_encoder import SpeakerEncoder

    ours = SpeakerEncoder.load(choice)

    def embed(samples: np.ndarray, rate: int) -> np.ndarray:
        return ours.embed(wav.resample(samples, rate, ours.mel.sample_rate)).numpy()

    return embed


def interval(values: Sequence[float], draws: int = 2000) -> Interval:
    """Mean and 95 % percentile bootstrap."""
    array = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(len(array), size=(draws, len(array)))
    low, high = np.percentile(array[picks].mean(1), (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high))


def compare(
    target: Sequence[np.ndarray], own: Sequence[np.ndarray], before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> Similarity:
    """Embeddings → cosines to the mean of `target`.

    Args:
        target: of the clips that were tuned on.
        own: of other clips of the same speaker, the most that can be hoped for.
        before, after: of the same sentences spoken by the base and by the clone.
    """
    centre = np.mean([x / np.linalg.norm(x) for x in target], axis=0)
    centre /= np.linalg.norm(centre)
    cosines = [[float(x @ centre / np.linalg.norm(x)) for x in group] for group in (before, after, own)]
    gain = [late - early for early, late in zip(cosines[0], cosines[1], strict=True)]
    return Similarity(interval(cosines[0]), interval(cosines[1]), interval(gain), interval(cosines[2]))
