"""Text into sentences, and over-long sentences into parts that a voice trained on short clips can carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sentencex

# Longest part, in words; what is longer is cut at its last clause mark past MIN_WORDS, or between words if it has none.
MAX_WORDS = 60
MIN_WORDS = 12


def split_sentences(text: str) -> Iterator[str]:
    """Sentences of a text in order, stripped, never empty; a line break always ends one."""
    for line in text.splitlines():
        if line.strip():
            for sentence in sentencex.segment("en", line):
                if sentence.strip():
                    yield sentence.strip()


def split_long(is_word: Sequence[bool], sizes: Sequence[int], max_size: int = 600) -> list[tuple[int, int]]:
    """Where to cut a sentence of words and marks: half-open ranges that cover it, each of at most MAX_WORDS words.

    Args:
        is_word: for each token, whether it is a word (else a punctuation mark).
        sizes: symbols of each token; a part holds at most max_size unless a single token is longer.
    """
    parts = []
    start = words = size = 0
    cut = None
    for index, word in enumerate(is_word):
        if word and (words == MAX_WORDS or (size + sizes[index] > max_size and words)):
            end = cut or index
            parts.append((start, end))
            words = sum(is_word[end:index])
            size = sum(sizes[end:index])
            start, cut = end, None
        words += word
        size += sizes[index]
        if not word and words >= MIN_WORDS:
            cut = index + 1
    if start < len(is_word):
        parts.append((start, len(is_word)))
    return parts
