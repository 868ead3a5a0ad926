"""Diarisation error rate against its definition on a grid, tried over every permutation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.asr.diarization_error import DiarizationErrors, Segment, diarization_errors

STEP = 0.25
segments = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 8), st.sampled_from("abc")).map(
        lambda t: Segment(t[0] * STEP, (t[0] + t[1]) * STEP, t[2])
    ),
    max_size=6,
)


def on_a_grid(reference, hypothesis, collar):
    """Piece by piece of 0.25 s, over every way to name the hypothesis' speakers."""
    pieces = []
    for piece in np.arange(0, 12, STEP) + STEP / 2:
        if any(abs(piece - time) < collar for segment in reference for time in segment[:2]):
            continue
        pieces.append([{s.speaker for s in x if s.start < piece < s.end} for x in (reference, hypothesis)])
    best = None
    for names in itertools.permutations("abcx", 3):
        called = dict(zip("abc", names, strict=True))
        missed = alarm = confused = 0.0
        for theirs, mine in pieces:
            correct = len(theirs & {called[s] for s in mine})
            missed += max(len(theirs) - len(mine), 0) * STEP
            alarm += max(len(mine) - len(theirs), 0) * STEP
            confused += (min(len(theirs), len(mine)) - correct) * STEP
        best = confused if best is None else min(best, confused)
    return DiarizationErrors(missed, alarm, best, sum(len(theirs) for theirs, _ in pieces) * STEP)


@settings(max_examples=25, deadline=None)
@given(segments, segments, st.sampled_from([0.0, 0.25, 0.5]))
def test_der_is_its_definition(reference, hypothesis, collar):
    found, expected = diarization_errors(reference, hypothesis, collar), on_a_grid(reference, hypothesis, collar)
    for name in ("missed", "false_alarm", "confused", "speech"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9), name


def test_perfect_swapped_and_wrong():
    reference = [Segment(0, 2, "a"), Segment(2, 4, "b")]
    swapped = [Segment(0, 2, 1), Segment(2, 4, 0)]
    assert diarization_errors(reference, swapped).rate == 0
    one = diarization_errors(reference, [Segment(0, 4, 0)])
    assert one == DiarizationErrors(0, 0, 2, 4) and one.rate == 0.5
    assert diarization_errors(reference, []).rate == 1
    assert diarization_errors([], reference).rate == float("inf") and diarization_errors([], []).rate == 0
    late = [Segment(0, 2.2, 1), Segment(2.2, 4, 0)]
    assert diarization_errors(reference, late).rate == pytest.approx(0.05)
    assert diarization_errors(reference, late, collar=0.25).rate == pytest.approx(0)
    assert (one + one).rate == 0.5


@pytest.mark.parametrize("bad", [Segment(1, 0, "a"), Segment(0, float("nan"), "a"), Segment(0, float("inf"), "a")])
def test_impossible_segments_are_refused(bad):
    with pytest.raises(ValueError, match="segment from"):
        diarization_errors([bad], [])
    with pytest.raises(ValueError, match="collar"):
        diarization_errors([], [], -0.1)
