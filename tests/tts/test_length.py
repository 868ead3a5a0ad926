"""Whole durations, paths and means over symbols."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.tts.length import path_symbols, positions, symbol_means, whole_durations


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), min_size=1, max_size=40))
def test_rounding_is_carried_and_sounded_symbols_are_heard(wishes):
    durations = torch.tensor([w[0] for w in wishes])
    sounded = torch.tensor([w[1] for w in wishes])
    whole = whole_durations(durations, sounded)
    wished = torch.where(sounded, durations.double().clamp(min=1), durations.double())
    assert (whole[sounded] >= 1).all() and (whole >= 0).all()
    assert (whole.cumsum(0) - wished.cumsum(0)).abs().max() <= 0.5 + 1e-6


def test_path_and_positions():
    durations = torch.tensor([[2, 0, 1, 0], [1, 1, 2, 0]])
    path = path_symbols(durations, 5)
    assert path.tolist() == [[0, 0, 2, 4, 4], [0, 1, 2, 2, 4]]
    place = positions(durations, path)
    torch.testing.assert_close(place[0, :3, 0], torch.tensor([0.25, 0.75, 0.5]))
    torch.testing.assert_close(place[1, 2], torch.tensor([0.25, 0.75, math.log(2)]))
    assert place[0, 3:].abs().sum() == 0 and place[1, 4].abs().sum() == 0


def test_symbol_means_are_plain_means():
    values = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    means = symbol_means(values, torch.tensor([[2, 0, 4], [1, 3, 0]]))
    torch.testing.assert_close(means[0], torch.stack([values[0, :2].mean(), torch.tensor(0.0), values[0, 2:].mean()]))
    torch.testing.assert_close(means[1], torch.stack([values[1, 0], values[1, 1:4].mean(), torch.tensor(0.0)]))
