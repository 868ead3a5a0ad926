"""Diarisation error rate: time given to the wrong speaker, missed, or invented.

Source: NIST RT-09 evaluation plan; overlapping speech is scored.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from melstate.asr.speaker_scoring import assign


class Segment(NamedTuple):
    """Somebody speaks from `start` to `end`, in seconds."""

    start: float
    end: float
    speaker: Hashable


@dataclass(frozen=True)
class DiarizationErrors:
    """Seconds; they add up.

    Attributes:
        missed: reference speech that has no hypothesis speaker.
        false_alarm: hypothesis speech beyond the reference's.
        confused: speech of another speaker than the one mapped.
        speech: reference speech, overlapping speakers counted one by one.
    """

    missed: float = 0.0
    false_alarm: float = 0.0
    confused: float = 0.0
    speech: float = 0.0

    @property
    def rate(self) -> float:
        errors = self.missed + self.false_alarm + self.confused
        return errors / self.speech if self.speech else (float("inf") if errors else 0.0)

    def __add__(self, other: DiarizationErrors) -> DiarizationErrors:
        return DiarizationErrors(
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confused + other.confused,
            self.speech + other.speech,
        )


def _activity(segments: Iterable[Segment], edges: np.ndarray) -> np.ndarray:
    """(speakers, pieces) bool: who speaks between each pair of neighbouring edges."""
    rows: dict[Hashable, np.ndarray] = {}
    for segment in segments:
        row = rows.setdefault(segment.speaker, np.zeros(len(edges) - 1, bool))
        start, end = np.searchsorted(edges, [segment.start, segment.end])
        row[start:end] = True
    return np.array(list(rows.values())).reshape(len(rows), len(edges) - 1)


def diarization_errors(
    reference: Sequence[Segment], hypothesis: Sequence[Segment], collar: float = 0.0
) -> DiarizationErrors:
    """Errors under the one-to-one speaker map with the most time in common.

    Args:
        collar: seconds each side of every reference boundary that are not scored (0.25 is usual; 0 scores all).
    Raises: ValueError: a segment that ends before it starts or is not finite, or a negative collar.
    """
    if not collar >= 0:
        raise ValueError(f"DER: a collar is 0 s or more, got {collar}")
    for segment in (*reference, *hypothesis):
        if not -np.inf < segment.start <= segment.end < np.inf:
            raise ValueError(f"DER: segment from {segment.start} to {segment.end} s of {segment.speaker!r}")
    boundaries = sorted({time for segment in reference for time in (segment.start, segment.end)})
    unscored = [(time - collar, time + collar) for time in boundaries] if collar else []
    edges = {time for segment in (*reference, *hypothesis) for time in (segment.start, segment.end)}
    times = np.array(sorted(edges | {time for pair in unscored for time in pair}), np.float64)
    if len(times) < 2:
        return DiarizationErrors()
    length = np.diff(times)
    for start, end in unscored:
        length[np.searchsorted(times, start) : np.searchsorted(times, end)] = 0.0
    theirs, ours = _activity(reference, times), _activity(hypothesis, times)
    common = (theirs * length) @ ours.T
    correct = sum(float(common[row, column]) for row, column in assign(common))
    n_theirs, n_ours = theirs.sum(0), ours.sum(0)
    return DiarizationErrors(
        missed=float(np.maximum(n_theirs - n_ours, 0) @ length),
        false_alarm=float(np.maximum(n_ours - n_theirs, 0) @ length),
        confused=float(np.minimum(n_theirs, n_ours) @ length) - correct,
        speech=float(n_theirs @ length),
    )
