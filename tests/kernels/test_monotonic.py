"""Monotonic alignment search against its definition and against every path."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.kernels.monotonic import monotonic_alignment, monotonic_alignment_reference


def path_score(scores, durations):
    symbol = torch.repeat_interleave(torch.arange(len(durations)), durations)
    return scores[torch.arange(len(symbol)), symbol].sum().item()


@pytest.mark.parametrize(("frames", "symbols"), [(1, 1), (5, 1), (5, 5), (7, 3), (8, 4)])
def test_the_definition_finds_the_best_of_all_paths(frames, symbols):
    scores = torch.randn(frames, symbols, generator=torch.Generator().manual_seed(frames), dtype=torch.float64)
    paths = [
        torch.diff(torch.tensor([0, *cuts, frames])) for cuts in itertools.combinations(range(1, frames), symbols - 1)
    ]
    best = max(paths, key=lambda durations: path_score(scores, durations))
    assert monotonic_alignment_reference(scores).tolist() == best.tolist()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_padded_batch_gives_each_utterance_its_own_alignment(data):
    symbols = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    frames = [n + data.draw(st.integers(0, 12)) for n in symbols]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    # Rounded scores make ties common.
    scores = torch.randn(len(symbols), max(frames), max(symbols), generator=generator).mul(2).round()
    scores = torch.where(torch.arange(max(symbols)) < torch.tensor(symbols)[:, None, None], scores, float("nan"))
    durations = monotonic_alignment(scores, torch.tensor(frames), torch.tensor(symbols))
    assert durations.sum(1).tolist() == frames
    for row, (t, n) in enumerate(zip(frames, symbols, strict=True)):
        assert durations[row, :n].min() >= 1 and durations[row, n:].sum() == 0
        assert durations[row, :n].tolist() == monotonic_alignment_reference(scores[row, :t, :n]).tolist()


def test_bad_lengths_and_scores_are_refused():
    scores = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="row 1: 2 frames cannot give each of 3"):
        monotonic_alignment(scores, torch.tensor([4, 2]), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="row 0: 5 frames"):
        monotonic_alignment(scores, torch.tensor([5, 4]), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="row 0: 4 frames, 0 symbols"):
        monotonic_alignment(scores, torch.tensor([4, 4]), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"must be \(2,\)"):
        monotonic_alignment(scores, torch.tensor([4]), torch.tensor([3]))
    scores[1, 2, 1] = float("nan")
    with pytest.raises(ValueError, match="row 1: scores are not finite"):
        monotonic_alignment(scores, torch.tensor([4, 4]), torch.tensor([3, 3]))
