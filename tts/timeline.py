"""When each phone and word of a sentence is spoken, from the symbol that each frame belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melstate.tts.audio import Span


class Timeline:
    """Collects frames of one sentence and releases the spans that are over.

    Args:
        words: the sentence's spoken words.
        names: the symbol's name at each position.
        word_of: index into words at each position, −1 for edges and punctuation.
        start: seconds at which the sentence starts.
        frame: seconds a frame lasts.
    """

    def __init__(
        self, words: Sequence[str], names: Sequence[str], word_of: Sequence[int], start: float, frame: float
    ) -> None:
        self._words, self._names, self._word_of = words, names, word_of
        self._start, self._frame = start, frame
        self._clock = 0  # frames so far
        self._symbol, self._symbol_from = -1, 0
        self._word, self._word_from = -1, 0
        self._done: tuple[list[Span], list[Span]] = ([], [])  # words, phones

    def add(self, symbol: Tensor) -> None:
        """symbol: (t,) position in the sentence of the symbol that each next frame speaks."""
        values, counts = torch.unique_consecutive(symbol, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value != self._symbol:
                self._close(value)
            self._clock += count

    def finish(self) -> None:
        """No more frames."""
        self._close(-1)

    def release(self, until: float) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Words and phones that end no later than `until` seconds and were not released before."""
        released = []
        for spans in self._done:
            ready = sum(span.end <= until + self._frame / 2 for span in spans)
            released.append(tuple(spans[:ready]))
            del spans[:ready]
        return released[0], released[1]

    def _close(self, next_symbol: int) -> None:
        words, phones = self._done
        if self._symbol >= 0:
            phones.append(self._span(self._names[self._symbol], self._symbol_from))
        next_word = self._word_of[next_symbol] if next_symbol >= 0 else -1
        if next_word != self._word:
            if self._word >= 0:
                words.append(self._span(self._words[self._word], self._word_from))
            self._word, self._word_from = next_word, self._clock
        self._symbol, self._symbol_from = next_symbol, self._clock

    def _span(self, text: str, since: int) -> Span:
        return Span(text, self._start + since * self._frame, self._start + self._clock * self._frame)
