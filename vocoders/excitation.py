"""What the source-filter vocoder filters: a band-limited pulse train and white noise, both in closed form.

Time runs in intervals of `hop` samples from the centre of one frame to the centre of the next, because F0 is known at
the centres. The analysis window of frame t is exactly the n_fft / hop intervals around its centre.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pulse_train(f0: Tensor, phase: Tensor, hop: int, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Σ_{k=1..K} cos 2πkφ at unit power, K the number of harmonics below Nyquist, φ the running phase in cycles.

    F0 is interpolated linearly between voiced frames and held beside unvoiced ones; the amplitude ramps from 1 at a
    voiced to 0 at an unvoiced frame.

    Args:
        f0: (B, T + 1) Hz at frame centres, 0 = unvoiced.
        phase: (B,) float64 cycles at the first centre.
    Returns: pulses (B, T, hop) and the phase at the last centre, in [0, 1).
    Source: the Dirichlet kernel (sin((2K+1)πφ) / sin(πφ) − 1) / 2.
    """
    voiced = (f0 > 0).to(f0)
    left, right = f0[:, :-1], f0[:, 1:]
    left, right = torch.where(left > 0, left, right)[..., None], torch.where(right > 0, right, left)[..., None]
    # Sum of the interpolated frequency over the first n samples of an interval: left·n + (right − left)·n²/(2·hop).
    cycles = (left.double() + right.double()).squeeze(2) * (hop / (2.0 * sample_rate))
    ends = phase[:, None] + cycles.cumsum(1)
    starts = torch.cat([phase[:, None], ends[:, :-1]], dim=1)
    n = torch.arange(hop, device=f0.device, dtype=f0.dtype) + 0.5
    ramp = n / hop
    within = (left * n + (right - left) * (n * ramp / 2)) / sample_rate
    turn = starts.frac().to(f0)[..., None] + within
    turn = turn - turn.round()
    frequency = torch.lerp(left, right, ramp).clamp(min=20.0)
    harmonics = torch.floor(sample_rate / (2 * frequency))
    order = 2 * harmonics + 1
    angle = math.pi * turn
    # The ratio's limit at phase 0 is `order`; below 1e-6 cycles the quotient is that already.
    ratio = torch.where(turn.abs() < 1e-6, order, torch.sin(order * angle) / torch.sin(angle))
    amplitude = torch.lerp(voiced[:, :-1, None], voiced[:, 1:, None], ramp)
    return (ratio - 1) / 2 * amplitude * torch.rsqrt(harmonics / 2), ends[:, -1].frac()


def _mix(x: Tensor) -> Tensor:
    """One round of a 32-bit integer hash, held in int64 (Wellons 2018, 'lowbias32')."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def noise(first: int, intervals: int, hop: int, seed: int, device: torch.device) -> Tensor:
    """White noise that depends on the sample's position and the seed alone, so that a stream can be cut anywhere.

    Args:
        first: index of the first interval, possibly negative.
    Returns: (intervals, hop) float32, uniform, unit power.
    """
    position = torch.arange(first * hop, (first + intervals) * hop, device=device)
    bits = _mix((position ^ _mix(torch.tensor(seed & 0xFFFFFFFF, device=device))) & 0xFFFFFFFF)
    return ((bits.to(torch.float32) + 0.5) * (2.0**-31 * math.sqrt(3.0)) - math.sqrt(3.0)).view(intervals, hop)
