"""A back-off n-gram of general English: log-probabilities of the n-grams worth keeping, and what is left for the rest.

Katz 1987: P(w | h) is what the table says, or else what h leaves over times P(w | h without its first word). What a
history leaves over follows from the table, so it is not stored: probabilities sum to 1 by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from melstate.asr.arrays import pack_words, unpack_words

START, END = 0, 1  # before a sentence, and what ends it; words follow, common ones first
FIRST_WORD = 2
MOST_SYMBOLS = 1 << 16
STEP = 1 / 12  # nats between two stored log-probabilities
LEAST = 1e-4  # of its probability a history leaves over at least


class BackoffModel:
    """Probabilities of words given up to two before.

    Args:
        words: symbol FIRST_WORD and on.
        grams: by order 1, 2, 3: (n, order) symbols in rising order. Order 1 has every symbol but START, once.
        codes: by order: (n,) uint8, −log P in STEPs.
    Raises: ValueError: tables that do not fit each other.
    """

    def __init__(self, words: Sequence[str], grams: Mapping[int, np.ndarray], codes: Mapping[int, np.ndarray]) -> None:
        self.words, self.grams, self.codes = tuple(words), dict(grams), dict(codes)
        size = len(words) + FIRST_WORD
        if size >= MOST_SYMBOLS or sorted(grams) != [1, 2, 3] or any(g.shape[1:] != (n,) for n, g in grams.items()):
            raise ValueError(
                f"n-grams of {sorted(grams)} words over {size} symbols; expected 1, 2, 3 and {MOST_SYMBOLS}"
            )
        if any(len(codes[n]) != len(grams[n]) or (grams[n] >= size).any() for n in grams) or len(grams[1]) != size - 1:
            raise ValueError(
                f"n-grams of {len(grams[1])} single symbols for {size - 1}, or codes or symbols beyond them"
            )
        self.symbols = {word: number for number, word in enumerate(words, start=FIRST_WORD)}
        self._keys = {n: pack(table) for n, table in grams.items()}
        if any((np.diff(keys) <= 0).any() for keys in self._keys.values()):
            raise ValueError("n-grams are not in rising order, or some are there twice")
        logs = {n: -STEP * np.asarray(codes[n], np.float64) for n in grams}
        logs[1] -= np.logaddexp.reduce(logs[1])
        self._logs = logs
        # by length of the history: packed histories that have n-grams, and the logarithm of what each leaves over
        self._left: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for n in (2, 3):
            histories, place = np.unique(self._keys[n] >> 16, return_inverse=True)
            lower = self.log_probabilities(grams[n][:, 1:])
            taken, below = (np.bincount(place, np.exp(x), len(histories)) for x in (logs[n], lower))
            # All of it belongs to the n-grams where there is no other word to leave it to.
            most = (1 - LEAST) / taken
            scale = np.where(1 - below < LEAST, most, np.minimum(1.0, most))
            self._logs[n] = logs[n] + np.log(scale)[place]
            left = np.log((1 - taken * scale) / np.maximum(1 - below, LEAST))
            self._left[n - 1] = histories, left

    def log_probabilities(self, table: np.ndarray) -> np.ndarray:
        """Of each row's last symbol after those before: (n, order) → (n,), order 1, 2 or 3."""
        keys, n = pack(table), table.shape[1]
        known = self._keys[n]
        if n == 1:
            return self._logs[1][np.searchsorted(known, keys)]
        found = self.log_probabilities(table[:, 1:])
        if not len(known):
            return found
        histories, left = self._left[n - 1]
        at = np.minimum(np.searchsorted(histories, keys >> 16), len(histories) - 1)
        found = found + np.where(histories[at] == keys >> 16, left[at], 0.0)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[place] == keys, self._logs[n][place], found)

    @property
    def start(self) -> tuple[int, ...]:
        """The history of a sentence's first word."""
        return (START, START)

    @property
    def unknown(self) -> int:
        """The symbol of words it does not know: no n-gram has it."""
        return len(self.words) + FIRST_WORD

    def symbol(self, word: str) -> int:
        return self.symbols.get(word, self.unknown)

    def log_probability(self, history: Sequence[int], symbol: int) -> float:
        """log P(symbol | the last two of the history); minus infinity for unknown words."""
        if symbol == self.unknown:
            return -math.inf
        spare, context = 0.0, tuple(history)[-2:]
        while context:
            packed = 0
            for one in context:
                packed = packed << 16 | one
            n = len(context) + 1
            found = _find(self._keys[n], packed << 16 | symbol)
            if found is not None:
                return spare + float(self._logs[n][found])
            histories, left = self._left[n - 1]
            at = _find(histories, packed)
            if at is not None:
                spare += float(left[at])
            context = context[1:]
        return spare + float(self._logs[1][symbol - 1])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For an .npz: columns are stored as steps from row to row, which compress."""
        arrays = {"words": pack_words(self.words)}
        for n, table in self.grams.items():
            table = table.astype(np.uint16)
            arrays[f"codes{n}"] = self.codes[n].astype(np.uint8)
            arrays[f"grams{n}"] = np.diff(table, axis=0, prepend=np.zeros((1, n), np.uint16)).T.copy()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> BackoffModel:
        """Raises: KeyError, ValueError: other arrays."""
        words = unpack_words(arrays["words"])
        grams = {n: np.cumsum(arrays[f"grams{n}"], axis=1, dtype=np.uint16).T.astype(np.int64) for n in (1, 2, 3)}
        return cls(words, grams, {n: arrays[f"codes{n}"] for n in (1, 2, 3)})


def pack(table: np.ndarray) -> np.ndarray:
    """(n, order) symbols → (n,) integers in the same order."""
    keys = np.zeros(len(table), np.int64)
    for column in table.T:
        keys = keys << 16 | column
    return keys


def encode(log_probs: np.ndarray) -> np.ndarray:
    """Natural-log probabilities as codes, rounded down."""
    return np.clip(np.ceil(-log_probs / STEP), 0, 255).astype(np.uint8)


def _find(keys: np.ndarray, key: int) -> int | None:
    place = int(keys.searchsorted(key))
    return place if place < len(keys) and keys[place] == key else None
