"""The words that may be written, and which letters can still become one of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class Lexicon:
    """A set of words that knows their beginnings.

    Args:
        words: in any order; each is kept once.
    Raises: ValueError: no word at all.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(sorted(set(words) - {""}))
        if not self.words:
            raise ValueError("lexicon: no words; nothing could ever be written")
        self._known = frozenset(self.words)
        self._begun: dict[str, bool] = {}

    def __contains__(self, word: str) -> bool:
        return word in self._known

    def begins(self, letters: str) -> bool:
        """Whether some word starts with these letters."""
        found = self._begun.get(letters)
        if found is None:
            place = bisect_left(self.words, letters)
            found = place < len(self.words) and self.words[place].startswith(letters)
            if len(self._begun) > 200_000:
                self._begun.clear()
            self._begun[letters] = found
        return found
