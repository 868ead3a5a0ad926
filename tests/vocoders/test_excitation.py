import math

import pytest
import torch

from melstate.vocoders.excitation import noise, pulse_train


def test_pulse_train_is_the_sum_of_its_harmonics():
    f0 = torch.full((2, 9), 200.0)
    f0[1] = 123.4
    phase = torch.tensor([0.0, 0.3], dtype=torch.float64)
    pulses, end = pulse_train(f0, phase, 256, 22050)
    n = torch.arange(8 * 256, dtype=torch.float64) + 0.5
    turn = phase[:, None] + f0[:, :1].double() * n / 22050
    for row, harmonics in enumerate((55, 89)):
        k = torch.arange(1, harmonics + 1, dtype=torch.float64)
        expected = torch.cos(2 * math.pi * k * turn[row, :, None]).sum(1) / math.sqrt(harmonics / 2)
        # The phase is kept to 1e-7 cycles in float32; the 89th harmonic multiplies that.
        torch.testing.assert_close(pulses[row].flatten().double(), expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(end, (phase + f0[:, 0].double() * 8 * 256 / 22050).frac(), atol=1e-9, rtol=0)


def test_pulse_train_does_not_depend_on_where_it_is_cut():
    f0 = 150 + 50 * torch.rand(1, 40, generator=torch.Generator().manual_seed(0))
    f0[:, 10:14] = 0
    phase = torch.zeros(1, dtype=torch.float64)
    whole, end = pulse_train(f0, phase, 256, 22050)
    first, phase = pulse_train(f0[:, :13], phase, 256, 22050)
    second, phase = pulse_train(f0[:, 12:], phase, 256, 22050)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=0)
    assert abs(float(phase - end)) < 1e-9


def test_unvoiced_frames_are_silent_and_finite():
    pulses, _ = pulse_train(torch.zeros(1, 5), torch.zeros(1, dtype=torch.float64), 256, 22050)
    assert torch.equal(pulses, torch.zeros_like(pulses))


def test_unit_power():
    pulses, _ = pulse_train(torch.full((1, 200), 110.0), torch.zeros(1, dtype=torch.float64), 256, 22050)
    assert float(pulses.square().mean()) == pytest.approx(1, abs=0.02)


def test_noise_is_indexed_by_position_and_seed():
    whole = noise(-2, 400, 256, 7, torch.device("cpu"))
    assert torch.equal(whole[100:103], noise(98, 3, 256, 7, torch.device("cpu")))
    assert not torch.equal(whole, noise(-2, 400, 256, 8, torch.device("cpu")))
    x = whole.flatten()
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.square().mean()) == pytest.approx(1, abs=0.02)
    for lag in (1, 2, 256, 1024):
        assert abs(float((x[lag:] * x[:-lag]).mean())) < 0.02
