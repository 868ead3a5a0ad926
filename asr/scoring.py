"""Word error rate, and confidence intervals of any rate of summed counts."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from melstate.asr.alignment import Pair, align


@dataclass(frozen=True)
class WordErrors:
    """Counts of one comparison; they add up.

    Attributes:
        substitutions, deletions, insertions: edits that make the reference the hypothesis.
        words: words of the reference.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word; 0 where both are empty, infinite where only the reference is."""
        return self.errors / self.words if self.words else (float("inf") if self.errors else 0.0)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


def words(text: str) -> list[str]:
    """What is compared: lower-case words of letters, digits and inner apostrophes; everything else separates."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.casefold().replace("’", "'"))


def count(pairs: Sequence[Pair], reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """The edits of an alignment."""
    substitutions = sum(i is not None and j is not None and reference[i] != hypothesis[j] for i, j in pairs)
    deletions = sum(j is None for _, j in pairs)
    insertions = sum(i is None for i, _ in pairs)
    return WordErrors(substitutions, deletions, insertions, len(reference))


def word_errors(reference: str | Sequence[str], hypothesis: str | Sequence[str]) -> WordErrors:
    """Substitutions, deletions and insertions; texts are split by `words`, lists are compared as they are."""
    reference = words(reference) if isinstance(reference, str) else reference
    hypothesis = words(hypothesis) if isinstance(hypothesis, str) else hypothesis
    return count(align(reference, hypothesis), reference, hypothesis)


class Interval(NamedTuple):
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def bootstrap(
    errors: Sequence[float],
    totals: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> Interval:
    """sum(errors) / sum(totals) with its percentile interval: whole groups are drawn with replacement.

    Args:
        errors, totals: one of each a clip.
        groups: what is drawn, such as each clip's speaker; the clips themselves by default. Clips of one speaker are
            not independent, so intervals over clips are too narrow to speak for new speakers.
        level: of the interval.
    Raises: ValueError: lengths differ, nothing to draw, or totals of zero.
    Source: Bisani & Ney, ICASSP 2004.
    """
    if not len(errors) == len(totals) == len(errors if groups is None else groups):
        counts = f"{len(errors)} errors, {len(totals)} totals" + ("" if groups is None else f", {len(groups)} groups")
        raise ValueError(f"bootstrap: {counts}; one of each a clip is needed")
    if not sum(totals) > 0:
        raise ValueError("bootstrap: there is nothing to divide by; the totals sum to 0")
    numbers: dict[Hashable, int] = {}
    of = [numbers.setdefault(key, len(numbers)) for key in (range(len(errors)) if groups is None else groups)]
    e = np.bincount(of, weights=np.asarray(errors, np.float64))
    n = np.bincount(of, weights=np.asarray(totals, np.float64))
    picks = np.random.default_rng(seed).integers(0, len(e), (resamples, len(e)))
    drawn = e[picks].sum(1) / np.maximum(n[picks].sum(1), 1e-12)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(e.sum() / n.sum()), float(low), float(high))
