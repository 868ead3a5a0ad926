"""Who said which word: WDER, MWDE, cpWER and tcpWER of transcripts with speakers.

Sources: WDER: El Shafey et al., Interspeech 2019 (arXiv 1907.05337). MWDE: Mao et al., Interspeech 2020
(arXiv 2005.08072). cpWER: Watanabe et al., CHiME-6 (arXiv 2004.09249). tcpWER: von Neumann et al. 2023
(arXiv 2307.11394), whose convention is kept: the collar widens the hypothesis' words.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from melstate.asr.alignment import Pair, align, distance
from melstate.asr.scoring import WordErrors, count


class SpokenWord(Protocol):
    """A word with its times in seconds and whoever said it (None: nobody knows, a speaker of its own)."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def speaker(self) -> Hashable: ...


@dataclass(frozen=True)
class SpeakerErrors:
    """Aligned word pairs whose speaker is wrong, of all aligned pairs (equal or substituted); they add up."""

    wrong: int = 0
    aligned: int = 0

    @property
    def rate(self) -> float:
        """0 where nothing was aligned: the measure says nothing about insertions and deletions."""
        return self.wrong / self.aligned if self.aligned else 0.0

    def __add__(self, other: SpeakerErrors) -> SpeakerErrors:
        return SpeakerErrors(self.wrong + other.wrong, self.aligned + other.aligned)


def assign(gain: np.ndarray) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) of the largest summed gain (Hungarian algorithm)."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(gain, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _texts(spoken: Iterable[SpokenWord]) -> list[str]:
    return [word.text for word in spoken]


def align_words(reference: Sequence[SpokenWord], hypothesis: Sequence[SpokenWord]) -> list[Pair]:
    """The words aligned whoever said them, times aside: what `wder` and `mwde` count on, made once for both."""
    return align(_texts(reference), _texts(hypothesis))


def wder(
    reference: Sequence[SpokenWord],
    hypothesis: Sequence[SpokenWord],
    pairs: Sequence[Pair] | None = None,
    speaker_map: Mapping[Hashable, Hashable] | None = None,
) -> SpeakerErrors:
    """(S_wrong + C_wrong) / (S + C): speakers compared by name, for closed sets.

    Args:
        pairs: from `align_words`, if it is at hand.
        speaker_map: hypothesis speaker → reference speaker; names are compared as they are if None.
    """
    wrong = aligned = 0
    for i, j in align_words(reference, hypothesis) if pairs is None else pairs:
        if i is not None and j is not None:
            aligned += 1
            said = hypothesis[j].speaker
            wrong += reference[i].speaker != (said if speaker_map is None else speaker_map.get(said, object()))
    return SpeakerErrors(wrong, aligned)


def best_speaker_map(
    reference: Sequence[SpokenWord], hypothesis: Sequence[SpokenWord], pairs: Sequence[Pair] | None = None
) -> dict[Hashable, Hashable]:
    """Hypothesis speaker → reference speaker, one to one, with the most aligned words in common."""
    theirs = {speaker: n for n, speaker in enumerate(dict.fromkeys(word.speaker for word in reference))}
    ours = {speaker: n for n, speaker in enumerate(dict.fromkeys(word.speaker for word in hypothesis))}
    common = np.zeros((len(ours), len(theirs)))
    for i, j in align_words(reference, hypothesis) if pairs is None else pairs:
        if i is not None and j is not None:
            common[ours[hypothesis[j].speaker], theirs[reference[i].speaker]] += 1
    names, other = list(ours), list(theirs)
    return {names[row]: other[column] for row, column in assign(common)}


def mwde(
    reference: Sequence[SpokenWord], hypothesis: Sequence[SpokenWord], pairs: Sequence[Pair] | None = None
) -> SpeakerErrors:
    """WDER under the best one-to-one speaker map: names do not matter, for open sets."""
    pairs = align_words(reference, hypothesis) if pairs is None else pairs
    return wder(reference, hypothesis, pairs, best_speaker_map(reference, hypothesis, pairs))


def _by_speaker(spoken: Iterable[SpokenWord]) -> list[list[SpokenWord]]:
    streams: dict[Hashable, list[SpokenWord]] = {}
    for word in spoken:
        streams.setdefault(word.speaker, []).append(word)
    return list(streams.values())


def _times(spoken: Sequence[SpokenWord], collar: float) -> np.ndarray:
    return np.array([(word.start - collar, word.end + collar) for word in spoken]).reshape(-1, 2)


def _permuted(reference: Sequence[SpokenWord], hypothesis: Sequence[SpokenWord], collar: float | None) -> WordErrors:
    """Errors summed over speakers under the pairing of speakers with the fewest; a missing partner is silence."""
    theirs, ours = _by_speaker(reference), _by_speaker(hypothesis)
    size = max(len(theirs), len(ours))
    theirs += [[] for _ in range(size - len(theirs))]
    ours += [[] for _ in range(size - len(ours))]

    def arguments(a: list[SpokenWord], b: list[SpokenWord]) -> tuple:
        if collar is None:
            return _texts(a), _texts(b)
        return _texts(a), _texts(b), _times(a, 0.0), _times(b, collar)

    errors = np.array([[distance(*arguments(a, b)) for b in ours] for a in theirs]).reshape(size, size)
    total = WordErrors()
    for row, column in assign(-errors):
        a, b = theirs[row], ours[column]
        total += count(align(*arguments(a, b)), _texts(a), _texts(b))
    return total


def cp_word_errors(reference: Sequence[SpokenWord], hypothesis: Sequence[SpokenWord]) -> WordErrors:
    """Concatenated minimum-permutation WER: each speaker's words in the order given, best pairing of speakers."""
    return _permuted(reference, hypothesis, None)


def tcp_word_errors(
    reference: Sequence[SpokenWord], hypothesis: Sequence[SpokenWord], collar: float = 5.0
) -> WordErrors:
    """Time-constrained cpWER: words count as equal or substituted only within `collar` seconds of each other.

    Each speaker's words must come in order of start. Raises ValueError on a negative collar or words out of order.
    """
    if not collar >= 0:
        raise ValueError(f"tcpWER: a collar is 0 s or more, got {collar}")
    for name, spoken in (("reference", reference), ("hypothesis", hypothesis)):
        for stream in _by_speaker(spoken):
            if any(after.start < before.start for before, after in zip(stream, stream[1:], strict=False)):
                raise ValueError(f"tcpWER: {name} speaker {stream[0].speaker!r} has words out of time order; sort them")
    return _permuted(reference, hypothesis, collar)
