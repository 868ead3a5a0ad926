"""The words that may be written, how common they are, and which letters can still become one of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping


class Lexicon:
    """A set of words that knows their beginnings.

    Args:
        words: in any order; each is kept once.
        frequencies: how often each is used, on any scale; a word that is missing counts as the rarest. None: not known.
    Attributes:
        probabilities: of the words, summing to 1; empty if not known.
    Raises: ValueError: no word at all, or frequencies that are not positive.
    """

    def __init__(self, words: Iterable[str], frequencies: Mapping[str, float] | None = None) -> None:
        self.words = tuple(sorted(set(words) - {""}))
        if not self.words:
            raise ValueError("lexicon: no words; nothing could ever be written")
        self.probabilities: dict[str, float] = {}
        if frequencies is not None:
            known = [frequencies[word] for word in self.words if word in frequencies]
            if not known or min(known) <= 0:
                raise ValueError(f"lexicon: frequencies must be positive, the least is {min(known, default=None)}")
            counts = [frequencies.get(word, min(known)) for word in self.words]
            total = sum(counts)
            self.probabilities = {w: count / total for w, count in zip(self.words, counts, strict=True)}
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
