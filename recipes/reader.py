"""Reads speech back with an independent recogniser (pocketsphinx's English model) and scores what it read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melstate.tts.text import normalize
from melstate.vocoders import wav

RATE = 16000  # Hz, of pocketsphinx's model
LEVEL = 0.05  # RMS of full scale that everything is brought to: recordings and synthesis are read at one loudness
EDGE = 0.2  # seconds of silence put at each end of everything


class Interval(NamedTuple):
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Reader:
    """Audio → lower-case words, one whole utterance at a time; the order of utterances does not matter.

    Args:
        cache: a file of transcripts by content hash, appended to; None reads everything anew.
    Raises: ImportError: pocketsphinx is missing (pip install 'melstate[evaluate]').
    """

    def __init__(self, cache: str | Path | None = None) -> None:
        from pocketsphinx import Decoder

        # Batch normalisation of the cepstra: the default carries its mean from one utterance into the next.
        self._decoder = Decoder(samprate=RATE, cmn="batch", loglevel="FATAL")
        self._path = None if cache is None else Path(cache)
        self._known: dict[str, str] = {}
        if self._path is not None and self._path.is_file():
            for line in self._path.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["audio"]] = entry["words"]
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a killed run: that clip is read again

    def read(self, samples: np.ndarray, sample_rate: int) -> str:
        """Transcript of (n,) float samples; "" where nothing was understood or nothing is to be heard."""
        prepared = prepare(samples, sample_rate)
        if not prepared.any():
            return ""  # the recogniser finds words in digital silence
        pcm = prepared.tobytes()
        key = hashlib.sha256(pcm).hexdigest()
        if key not in self._known:
            self._decoder.start_utt()
            self._decoder.process_raw(pcm, no_search=False, full_utt=True)
            self._decoder.end_utt()
            hypothesis = self._decoder.hyp()
            self._known[key] = hypothesis.hypstr if hypothesis else ""
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"audio": key, "words": self._known[key]}) + "\n")
        return self._known[key]


def prepare(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """16 kHz int16 at the common level with the common edges: recordings and synthesis go through the same door."""
    audio = wav.resample(np.asarray(samples, np.float32), sample_rate, RATE)
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if len(audio) else 0.0
    edge = np.zeros(round(EDGE * RATE), np.float32)
    return wav.to_int16(np.concatenate([edge, audio * (LEVEL / rms if rms > 1e-6 else 1.0), edge]))


def words(text: str) -> str:
    """What is compared: the spoken form in lower case, letters and apostrophes only."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", normalize(text).lower().replace("’", "'")))


class Score(NamedTuple):
    """Word errors and reference words of each prompt."""

    errors: np.ndarray
    words: np.ndarray

    @property
    def rate(self) -> float:
        return float(self.errors.sum() / self.words.sum())


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Substitutions, deletions and insertions prompt by prompt (jiwer). Raises ValueError on an empty reference."""
    import jiwer

    errors, counts = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        if not words(reference):
            raise ValueError(f"prompt {reference!r} holds no words to compare; leave it out")
        found = jiwer.process_words(words(reference), words(hypothesis))
        errors.append(found.substitutions + found.deletions + found.insertions)
        counts.append(found.hits + found.substitutions + found.deletions)
    return Score(np.array(errors), np.array(counts))


def word_error_rate(of: Score, resamples: int = 5000, seed: int = 0) -> Interval:
    """WER and its interval over prompts, drawn with replacement."""
    picks = _picks(len(of.words), resamples, seed)
    return _interval(of.rate, of.errors[picks].sum(1) / of.words[picks].sum(1))


def ratio(of: Score, to: Score, resamples: int = 5000, seed: int = 0) -> Interval:
    """WER of one over WER of the other, for the same prompts; both are drawn together."""
    picks = _picks(len(of.words), resamples, seed)
    base = np.maximum(to.errors[picks].sum(1), 1e-9)
    return _interval(
        of.rate / max(to.rate, 1e-9), of.errors[picks].sum(1) / of.words[picks].sum(1) * to.words[picks].sum(1) / base
    )


def _picks(count: int, resamples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (resamples, count))


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))
