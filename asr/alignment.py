"""Align two word sequences with the fewest edits (Levenshtein 1966), in linear memory (Hirschberg 1975).

Of the shortest alignments one with the most equal words is taken, so that substitutions, deletions and insertions are
unique: every edit costs `edit`, more than there can be substitutions, and a substitution one more. A pair of words may
be allowed only where their times overlap. Rows of the table are vectors, so hours of conversation take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Pair = tuple[int | None, int | None]  # (reference index, hypothesis index); None: inserted or deleted
Times = np.ndarray  # (n, 2) seconds: start, end
TABLE = 1 << 20  # cells that are kept whole; larger tables are split


class _Costs:
    """What pairing reference word i with each hypothesis word costs: 0 if equal, `edit` + 1 if different.

    A pair that is not allowed costs as much as deleting one and inserting the other, so it is never worth more.
    """

    def __init__(
        self, reference: np.ndarray, hypothesis: np.ndarray, times: Times | None, other_times: Times | None
    ) -> None:
        self.reference, self.hypothesis, self.times, self.other_times = reference, hypothesis, times, other_times
        self.edit = len(reference) + len(hypothesis) + 1

    def row(self, i: int, start: int, stop: int) -> np.ndarray:
        cost = np.where(self.hypothesis[start:stop] == self.reference[i], 0, self.edit + 1)
        if self.times is not None and self.other_times is not None:
            begin, end = self.times[i]
            other = self.other_times[start:stop]
            cost[(begin >= other[:, 1]) | (end <= other[:, 0])] = 2 * self.edit
        return cost

    def insertions(self, start: int, stop: int) -> np.ndarray:
        """The cost of inserting 0, 1, … words of hypothesis[start:stop]."""
        return np.arange(stop - start + 1) * self.edit


def _next_row(before: np.ndarray, cost: np.ndarray, insertions: np.ndarray, edit: int) -> np.ndarray:
    """One row of the table from the one before: cheapest of deletion, pairing and (running minimum) insertions."""
    row = before + edit
    np.minimum(row[1:], before[:-1] + cost, out=row[1:])
    return np.minimum.accumulate(row - insertions) + insertions


def _edge(costs: _Costs, rows: range, start: int, stop: int, backwards: bool) -> np.ndarray:
    """Costs of `rows` against every prefix (or, backwards, suffix) of hypothesis[start:stop]: (stop - start + 1,)."""
    insertions = costs.insertions(start, stop)
    row = insertions
    for i in reversed(rows) if backwards else rows:
        cost = costs.row(i, start, stop)
        row = _next_row(row, cost[::-1] if backwards else cost, insertions, costs.edit)
    return row[::-1] if backwards else row


def _whole(costs: _Costs, first: int, last: int, start: int, stop: int) -> list[Pair]:
    """Align reference[first:last] with hypothesis[start:stop], tracing back through the whole table."""
    edit, insertions = costs.edit, costs.insertions(start, stop)
    table, pairing = [insertions], []
    for i in range(first, last):
        pairing.append(costs.row(i, start, stop))
        table.append(_next_row(table[-1], pairing[-1], insertions, edit))
    pairs: list[Pair] = []
    i, j = last - first, stop - start
    while i or j:
        here = table[i][j]
        paired = pairing[i - 1][j - 1] if i and j else 2 * edit
        if paired < 2 * edit and here == table[i - 1][j - 1] + paired:
            i, j = i - 1, j - 1
            pairs.append((first + i, start + j))
        elif j and here == table[i][j - 1] + edit:
            j -= 1
            pairs.append((None, start + j))
        else:
            i -= 1
            pairs.append((first + i, None))
    return pairs[::-1]


def _split(costs: _Costs, first: int, last: int, start: int, stop: int, cells: int) -> list[Pair]:
    """Hirschberg: an optimal path crosses the middle row where the distances to both ends sum to the least."""
    if (last - first + 1) * (stop - start + 1) <= cells or last - first < 2:
        return _whole(costs, first, last, start, stop)
    middle = (first + last) // 2
    upper = _edge(costs, range(first, middle), start, stop, backwards=False)
    lower = _edge(costs, range(middle, last), start, stop, backwards=True)
    cut = start + int(np.argmin(upper + lower))
    return _split(costs, first, middle, start, cut, cells) + _split(costs, middle, last, cut, stop, cells)


def _costs(
    reference: Sequence[str], hypothesis: Sequence[str], reference_times: Times | None, hypothesis_times: Times | None
) -> _Costs:
    if (reference_times is None) != (hypothesis_times is None):
        raise ValueError("align: give the times of both sequences or of neither")
    checked = []
    for name, words, times in (
        ("reference", reference, reference_times),
        ("hypothesis", hypothesis, hypothesis_times),
    ):
        if times is not None:
            times = np.asarray(times, np.float64).reshape(-1, 2)
            if len(times) != len(words):
                raise ValueError(f"align: {name} has {len(words)} words and {len(times)} times")
            if not np.isfinite(times).all():
                raise ValueError(f"align: {name} has times that are not finite")
        checked.append(times)
    numbers: dict[str, int] = {}
    coded = [
        np.array([numbers.setdefault(w, len(numbers)) for w in words], np.int32) for words in (reference, hypothesis)
    ]
    return _Costs(coded[0], coded[1], checked[0], checked[1])


def align(
    reference: Sequence[str],
    hypothesis: Sequence[str],
    reference_times: Times | None = None,
    hypothesis_times: Times | None = None,
    *,
    table_cells: int = TABLE,
) -> list[Pair]:
    """The words paired with the fewest edits and, among those, the most equal words; in order.

    Args:
        reference_times, hypothesis_times: (n, 2) start and end of every word; words are paired, as equal or as
            substitutes, only if their intervals overlap. None allows every pair.
        table_cells: tables up to this size are kept whole.
    Raises: ValueError: times of one sequence only, or not as many times as words.
    """
    costs = _costs(reference, hypothesis, reference_times, hypothesis_times)
    return _split(costs, 0, len(reference), 0, len(hypothesis), table_cells)


def distance(
    reference: Sequence[str],
    hypothesis: Sequence[str],
    reference_times: Times | None = None,
    hypothesis_times: Times | None = None,
) -> int:
    """The number of edits of `align`, without the alignment."""
    costs = _costs(reference, hypothesis, reference_times, hypothesis_times)
    return int(_edge(costs, range(len(reference)), 0, len(hypothesis), backwards=False)[-1]) // costs.edit
