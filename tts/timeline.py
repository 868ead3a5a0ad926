"""When each phone and word of a sentence is spoken, from the symbol that each frame belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melstate.tts.audio import Coverage, Span, SpokenSentence


class Timeline:
    """Collects frames of one sentence and releases the spans that are over.

    Times are counted in samples, and only divided by the rate when a span is made: spans that touch have the same time.

    Args:
        text: the sentence.
        words: its spoken words.
        names: the symbol's name at each position.
        word_of: index into words at each position, −1 for edges and punctuation.
        start: samples of the speech before the sentence.
        hop: samples a frame.
        rate: Hz.
    """

    def __init__(
        self,
        text: str,
        words: Sequence[str],
        names: Sequence[str],
        word_of: Sequence[int],
        *,
        start: int,
        hop: int,
        rate: int,
    ) -> None:
        self._text, self._words, self._names, self._word_of = text, words, names, word_of
        self._start, self._hop, self._rate = start, hop, rate
        self._clock = 0  # frames so far
        self._symbol, self._symbol_from = -1, 0
        self._word, self._word_from = -1, 0
        self._done: tuple[list[Span], list[Span]] = ([], [])  # words, phones
        self._frames = [0] * len(names)
        self._in_order = True

    def add(self, symbol: Tensor) -> None:
        """symbol: (t,) position in the sentence of the symbol that each next frame speaks."""
        values, counts = torch.unique_consecutive(symbol, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value != self._symbol:
                self._in_order &= value > self._symbol
                self._close(value)
            self._frames[value] += count
            self._clock += count

    def finish(self) -> SpokenSentence:
        """No more frames: the sentence as it was spoken."""
        self._close(-1)
        phones = [count for count, word in zip(self._frames, self._word_of, strict=True) if word >= 0]
        spoken = sum(count > 0 for count in phones)
        coverage = Coverage(1, int(self._in_order), len(phones), spoken, min(phones, default=None))
        return SpokenSentence(self._text, *self._seconds(0), coverage)

    def release(self, until: float) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Words and phones that end no later than `until` seconds and were not released before."""
        released = []
        for spans in self._done:
            ready = sum(span.end <= until + self._hop / self._rate / 2 for span in spans)
            released.append(tuple(spans[:ready]))
            del spans[:ready]
        return released[0], released[1]

    def _close(self, next_symbol: int) -> None:
        words, phones = self._done
        if self._symbol >= 0:
            phones.append(Span(self._names[self._symbol], *self._seconds(self._symbol_from)))
        next_word = self._word_of[next_symbol] if next_symbol >= 0 else -1
        if next_word != self._word:
            if self._word >= 0:
                words.append(Span(self._words[self._word], *self._seconds(self._word_from)))
            self._word, self._word_from = next_word, self._clock
        self._symbol, self._symbol_from = next_symbol, self._clock

    def _seconds(self, since: int) -> tuple[float, float]:
        """From frame `since` to now."""
        start, end = (self._start + self._hop * frame for frame in (since, self._clock))
        return start / self._rate, end / self._rate
