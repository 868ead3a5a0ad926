"""Levels: what is quantised comes back within half a step, limits are checked, soft targets have the value as mean."""

import math

import pytest
import torch

from melstate.tts.levels import Levels, draw, expected_level, level_loss, tempered


def limited(levels=16):
    made = Levels(3, levels)
    made.set_limits(torch.tensor([-11.0, 0.0, 4.5]), torch.tensor([2.0, 1.0, 6.0]))
    return made


@pytest.mark.parametrize("levels", [2, 16])
def test_values_come_back_within_half_a_step(levels):
    made = limited(levels)
    values = made.low + torch.rand(50, 3) * (made.high - made.low)
    index = made.quantise(values)
    assert int(index.min()) >= 0 and int(index.max()) <= levels - 1
    step = (made.high - made.low) / (levels - 1)
    assert bool(((made.value(index) - values).abs() <= step / 2 + 1e-5).all())
    assert torch.equal(made.quantise(made.value(index)), index)
    torch.testing.assert_close(made.value(made.place(values)), values)


def test_values_outside_are_clamped():
    made = limited()
    assert made.quantise(torch.tensor([[-99.0, 9.0, 4.5]])).tolist() == [[0, 15, 0]]
    assert made.place(torch.tensor([[99.0, -9.0, 6.0]])).tolist() == [[15.0, 0.0, 15.0]]


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([0.0, 0.0, 0.0], [1.0, 0.0, 1.0], "channel 1 has limits 0..0"),
        ([0.0, math.nan, 0.0], [1.0, 1.0, 1.0], "low must be 3 finite values"),
        ([0.0, 0.0], [1.0, 1.0], r"3 finite values, got \(2,\)"),
    ],
)
def test_limits_are_checked(low, high, message):
    with pytest.raises(ValueError, match=message):
        Levels(3).set_limits(torch.tensor(low), torch.tensor(high))


@pytest.mark.parametrize(("channels", "levels"), [(0, 16), (3, 1)])
def test_sizes_are_checked(channels, levels):
    with pytest.raises(ValueError, match="levels: need"):
        Levels(channels, levels)


def test_the_loss_is_cross_entropy_with_the_two_levels_around_the_value():
    logits = torch.randn(5, 16, dtype=torch.float64)
    place = torch.tensor([0.0, 15.0, 3.25, 7.0, 14.5], dtype=torch.float64)
    wanted = []
    for row, at in zip(logits.log_softmax(-1), place.tolist(), strict=True):
        target = torch.zeros(16, dtype=torch.float64)
        below = min(int(at), 14)
        target[below], target[below + 1] = 1 - (at - below), at - below
        wanted.append(-(target * row).sum())
    torch.testing.assert_close(level_loss(logits, place), torch.stack(wanted))


def test_the_best_prediction_has_the_value_as_its_mean():
    place = torch.tensor([3.25, 0.0, 14.75])
    logits = torch.zeros(3, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(300):
        optimizer.zero_grad()
        level_loss(logits, place).sum().backward()
        optimizer.step()
    torch.testing.assert_close(expected_level(logits.detach().softmax(-1)), place, atol=0.02, rtol=0)


def test_drawing_follows_the_probabilities():
    logits = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    probabilities = tempered(logits, torch.full((4,), 0.8), 1.0)
    torch.testing.assert_close(probabilities, (logits / 0.8).softmax(-1))
    drawn = draw(probabilities.repeat(5000, 1), uniform).view(5000, 4)
    found = torch.stack([(drawn == level).float().mean(0) for level in range(16)], 1)
    torch.testing.assert_close(found, probabilities, atol=0.03, rtol=0)


def test_temperature_0_and_small_top_p_leave_the_likeliest():
    logits = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    best = logits.argmax(-1)
    uniform = torch.tensor([0.01, 0.3, 0.9, 0.99])
    mixed = tempered(logits, torch.tensor([0.0, 1.0, 0.0, 1.0]), 1.0)
    assert draw(mixed, uniform)[[0, 2]].tolist() == best[[0, 2]].tolist() and float(mixed[1].max()) < 0.99
    assert torch.equal(draw(tempered(logits, torch.ones(4), 1e-6), uniform), best)


def test_top_p_keeps_the_fewest_levels_that_reach_it():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = tempered(logits, torch.ones(1), 0.6)
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
