"""Tempo: plain speed changes nothing, lengths add up, splitting the frames changes nothing."""

import pytest
import torch

from melstate.tts.tempo import Tempo


def run(values, symbol, lengths, split):
    tempo, parts = Tempo(), []
    for start in range(0, len(values), split):
        stop = start + split
        parts.append(tempo.push(values[start:stop], symbol[start:stop], lengths[start:stop]))
    parts.append(tempo.finish())
    return torch.cat([part for part, _ in parts]), [i for _, at in parts for i in at]


def test_plain_speed_changes_nothing():
    values, symbol = torch.randn(7, 3), [0, 0, 1, 2, 2, 2, 4]
    found, at = run(values, symbol, [1.0] * 7, 3)
    assert torch.equal(found, values) and at == symbol


@pytest.mark.parametrize("length", [0.3, 0.5, 1.7, 4.0])
@pytest.mark.parametrize("split", [1, 4, 100])
def test_lengths_stretch_a_ramp_to_a_ramp(length, split):
    values = torch.arange(40.0)[:, None]
    found, at = run(values, list(range(40)), [length] * 40, split)
    assert abs(len(found) - 40 * length) <= 1
    inside = found[:, 0] < 39
    wanted = torch.arange(len(found)) / length
    torch.testing.assert_close(found[inside, 0], wanted[inside], atol=1e-3, rtol=0)
    assert at == sorted(at)
    whole, at_once = run(values, list(range(40)), [length] * 40, 40)
    assert torch.equal(found, whole) and at == at_once


def test_frames_of_no_length_vanish_and_pauses_grow():
    values, symbol = torch.arange(6.0)[:, None], [0, 0, 1, 1, 2, 2]
    _, without = run(values, symbol, [1, 1, 0, 0, 1, 1], 2)
    assert without == [0, 0, 2, 2]
    _, longer = run(values, symbol, [1, 1, 3, 3, 1, 1], 2)
    assert len(longer) == 10 and 5 <= longer.count(1) <= 7


def test_no_symbol_is_lost_to_speed():
    symbol = [0, 0, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4]
    _, at = run(torch.randn(12, 2), symbol, [0.34] * 12, 5)
    assert at == [0, 1, 2, 4, 4], "frame 1 is nearest to a 2, and says the 1 before it"


def test_nothing_cannot_be_finished():
    with pytest.raises(RuntimeError, match="no frame"):
        Tempo().finish()
