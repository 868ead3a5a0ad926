"""Read the n-grams of a CMU Sphinx language model: its "trie" binary format, as pocketsphinx has it for English.

    header "Trie Language Model", uint8 order, uint32 counts
    uint32, float32 tables of probabilities and back-off weights that the n-grams' codes stand for
    unigrams: float32 probability, float32 back-off, uint32 place of the first bigram that ends in the word
    bigrams, trigrams: bits of word, codes and place of the first trigram; an n-gram's words are read backwards
    uint32 size, words with a NUL after each

pocketsphinx' own writer of ARPA files stops in the middle of this model (version 5.1.1).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

HEADER = b"Trie Language Model"
CODE_BITS = 16
UNIT = math.log(1.0001)  # of its logarithms, in nats


class NGrams(NamedTuple):
    """Words, and by order (n, order) places in them and natural-log probabilities."""

    words: list[str]
    tables: dict[int, np.ndarray]
    logs: dict[int, np.ndarray]


def read_sphinx(path: str | Path) -> NGrams:
    """The n-grams of a model of order three.

    Raises: ValueError: another format or order, or a file that ends too soon. FileNotFoundError.
    """
    data = Path(path).read_bytes()
    if not data.startswith(HEADER) or len(data) < len(HEADER) + 13 or data[len(HEADER)] != 3:
        raise ValueError(f"{path}: not a CMU Sphinx trie of order 3")
    place = len(HEADER) + 1

    def take(count: int, kind: str | np.dtype) -> np.ndarray:
        nonlocal place
        size = count * np.dtype(kind).itemsize
        if place + size > len(data):
            raise ValueError(f"{path}: {len(data)} bytes, {place + size} expected; download it again")
        place += size
        return np.frombuffer(data, kind, count, place - size)

    ones, twos, threes = take(3, "<u4").tolist()
    take(1, "<u4")
    two_codes, _, three_codes = take(3 << CODE_BITS, "<f4").reshape(3, -1)
    unigrams = take(ones + 1, np.dtype([("log", "<f4"), ("left", "<f4"), ("next", "<u4")]))
    word_bits, next_bits = ones.bit_length(), threes.bit_length()
    two_bits, three_bits = word_bits + 2 * CODE_BITS + next_bits, word_bits + CODE_BITS
    two_bytes, three_bytes = (((1 + n) * bits + 7) // 8 + 8 for n, bits in ((twos, two_bits), (threes, three_bits)))
    packed_twos, packed_threes = take(two_bytes, "u1"), take(three_bytes, "u1")
    (size,) = take(1, "<u4").tolist()
    words = take(size, "u1").tobytes().decode("utf-8").split("\0")[:-1]

    def fields(packed: np.ndarray, count: int, bits: int, offset: int, width: int) -> np.ndarray:
        """One field of every entry: a little-endian window of eight bytes around it, shifted."""
        first = np.arange(count, dtype=np.int64) * bits + offset
        window = np.zeros(count, np.uint64)
        for byte in range(8):
            window |= packed[np.minimum((first >> 3) + byte, len(packed) - 1)].astype(np.uint64) << np.uint64(8 * byte)
        return ((window >> (first & 7).astype(np.uint64)) & np.uint64((1 << width) - 1)).astype(np.int64)

    # A bigram's entry lies under its last word, a trigram's under its last two. The counts say how much room there is;
    # how much of it is used, the ends of the last words' ranges say.
    twos = min(twos, int(unigrams["next"][-1]))
    starts = unigrams["next"].astype(np.int64)
    last = np.repeat(np.arange(ones), starts[1:] - starts[:-1])
    before = fields(packed_twos, twos, two_bits, 0, word_bits)
    codes = fields(packed_twos, twos, two_bits, word_bits, 2 * CODE_BITS) >> CODE_BITS
    following = fields(packed_twos, twos + 1, two_bits, two_bits - next_bits, next_bits)
    threes = min(threes, int(following[-1]))
    under = np.repeat(np.arange(twos), following[1:] - following[:-1])
    first = fields(packed_threes, threes, three_bits, 0, word_bits)
    three = fields(packed_threes, threes, three_bits, word_bits, CODE_BITS)
    if len(words) != ones or len(last) != twos or len(under) != threes:
        raise ValueError(
            f"{path}: {len(words)} words, {len(last)} and {len(under)} n-grams of {ones}, {twos}, {threes}"
        )
    tables = {
        1: np.arange(ones)[:, None],
        2: np.stack([before, last], axis=1),
        3: np.stack([first, before[under], last[under]], axis=1),
    }
    logs = {1: unigrams["log"][:ones], 2: two_codes[codes], 3: three_codes[three]}
    return NGrams(words, tables, {n: UNIT * values.astype(np.float64) for n, values in logs.items()})
