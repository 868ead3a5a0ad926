"""Utterances to learn recognition from, whole or without their first or last words."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from melstate.recipes.data.waveforms import Waveform
from melstate.vocoders.checkpoint import write_atomic

LULL = 320  # samples, 20 ms at 16 kHz: words are parted in the middle of the quietest so many


class Words(NamedTuple):
    """Where the W words of a clip are.

    Attributes:
        starts, stops: (W,) samples of the clip's speech.
        pieces: (W + 1,) where each word's tokens begin, and where the last one's end.
        phones: likewise, or None if it is not known which phones are which word's.
    """

    starts: np.ndarray
    stops: np.ndarray
    pieces: np.ndarray
    phones: np.ndarray | None


class Clip(NamedTuple):
    """One utterance: its waveform, pieces, phones (may be empty), normalised text, how often it is drawn, and its
    words if it is known where they are."""

    waveform: Waveform
    tokens: tuple[int, ...]
    phones: tuple[int, ...]
    text: str
    weight: float
    words: Words | None = None

    @property
    def speaker(self) -> str:
        return self.waveform.recording.speaker

    def before(self, word: int) -> Clip:
        """Its first words, up to but not with number `word` ≥ 1; needs `words`."""
        return self._part(0, word)

    def after(self, word: int) -> Clip:
        """Its words from number `word` ≥ 1 on; needs `words`."""
        assert self.words is not None
        return self._part(word, len(self.words.starts))

    def _part(self, first: int, last: int) -> Clip:
        recording, audio, start, stop = self.waveform
        words = self.words
        assert words is not None and 0 <= first < last <= len(words.starts)
        count = len(words.starts)
        # Sound outside of the speech stays only on a side that is not cut.
        begin = start + self._between(first) if first else 0
        end = start + self._between(last) if last < count else len(audio)
        low, high = max(start, begin), min(stop, end)
        phones: tuple[int, ...] = ()
        if words.phones is not None:
            phones = self.phones[words.phones[first] : words.phones[last]]
        kept = Words(
            words.starts[first:last] - (low - start),
            words.stops[first:last] - (low - start),
            words.pieces[first : last + 1] - words.pieces[first],
            None if words.phones is None else words.phones[first : last + 1] - words.phones[first],
        )
        return Clip(
            Waveform(recording, audio[begin:end], low - begin, high - begin),
            self.tokens[words.pieces[first] : words.pieces[last]],
            phones,
            " ".join(self.text.split()[first:last]),
            self.weight,
            kept,
        )

    def _between(self, word: int) -> int:
        """The sample of the speech that parts a word from the one before: the quietest place between them."""
        assert self.words is not None
        low, high = int(self.words.stops[word - 1]), int(self.words.starts[word])
        if high - low <= LULL:
            return (low + high) // 2
        power = np.square(self.waveform.speech[low:high].astype(np.float64))
        sums = np.cumsum(np.concatenate([[0.0], power]))
        return low + int(np.argmin(sums[LULL:] - sums[:-LULL])) + LULL // 2


def place_words(
    times: np.ndarray,
    sample_rate: int,
    samples: int,
    words: Sequence[Sequence[int]],
    phones: Sequence[Sequence[int]],
) -> Words:
    """Words of a clip whose speech has so many samples.

    Args:
        times: (W, 2) seconds. words: the tokens of each. phones: of each, if they are known.
    Raises: ValueError: another number of words, or times that are not in order or not inside.
    """
    if len(times) != len(words):
        raise ValueError(f"times of {len(times)} words, the text has {len(words)}")
    ordered = np.asarray(times, np.float64).reshape(-1)
    if not (np.diff(ordered, prepend=0.0) >= 0).all() or (ordered > samples / sample_rate + 0.1).any():
        raise ValueError(f"words' times are not in order within its {samples / sample_rate:.2f} s")
    bounds = np.minimum(np.rint(ordered * sample_rate), samples).astype(np.int64).reshape(-1, 2)

    def offsets(groups: Sequence[Sequence[int]]) -> np.ndarray:
        return np.cumsum([0, *map(len, groups)])

    return Words(bounds[:, 0], bounds[:, 1], offsets(words), offsets(phones) if len(phones) == len(words) else None)


def save_times(path: str | Path, times: Mapping[str, np.ndarray]) -> None:
    """Write (W, 2) seconds by clip id, as `load_times` reads them."""
    every = [np.asarray(rows, np.float32).reshape(-1, 2) for rows in times.values()]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        ids=np.array(list(times), dtype=np.str_),
        words=np.array([len(rows) for rows in every], dtype=np.int32),
        times=np.concatenate([np.zeros((0, 2), np.float32), *every]),
    )
    write_atomic(Path(path), buffer.getvalue())


def load_times(path: str | Path) -> dict[str, np.ndarray]:
    """(W, 2) start and end in seconds of the words of each clip, by its id.

    Raises: FileNotFoundError. ValueError: not a file of word times.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no word times; python -m melstate.recipes.align_words --run RUN makes them")
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, words, times = (file[key] for key in ("ids", "words", "times"))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: not word times as melstate.recipes.align_words writes them ({error})") from error
    if len(ids) != len(words) or times.shape != (words.sum(), 2):
        raise ValueError(
            f"{path}: {len(ids)} clips, {len(words)} counts of {words.sum()} words and times {times.shape} "
            "do not go together; align again"
        )
    return dict(zip(ids.tolist(), np.split(times, np.cumsum(words))[:-1], strict=True))
