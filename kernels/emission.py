"""Gaussian emissions and transition logits of a neural HMM, tile by tile: hidden activations are never all in memory.

    hidden = relu(a_t + e_n),   [mean | s | v] = W hidden + b,   std = max(softplus(s), floor)
    emission(t, n) = Σ_d log N(x_t; mean, std²),   transition(t, n) = v

a_t and e_n are the two parts of the split first layer: W_1 [h_t; y_n] + b_1 = a_t + e_n. A tile holds some frames and
the states that a path can be in during them. The backward pass makes a tile's activations anew, and only for pairs
(t, n) whose gradient matters: those that the HMM's posterior gives any weight, a small share of all.

Source: Mehta et al. 2021 (arXiv:2108.13320), section 3, for the distribution.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.kernels.hmm import readable


def emissions(
    by_frame: Tensor,
    by_state: Tensor,
    weight: Tensor,
    bias: Tensor,
    observed: Tensor,
    frames: Tensor,
    states: Tensor,
    *,
    floor: float = 0.01,
    tile: int | None = None,
    cutoff: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Log-densities and transition logits of all pairs (t, n) that an HMM reads, see `readable`; 0 elsewhere.

    Args:
        by_frame: (B, T, H) a_t.
        by_state: (B, N, H) e_n.
        weight, bias: (2 D + 1, H) and (2 D + 1): means, s, v.
        observed: (B, T, D).
        frames, states: (B,) how many are real.
        floor: least standard deviation; no gradient flows to s below it.
        tile: pairs at a time; None for a size that suits the device.
        cutoff: pairs whose gradients are below this share of the largest are left out of the backward pass; 0 for none.
    Returns: emission and transition, (B, T, N) in float32 (float64 for float64 operands).
    Raises: ValueError: shapes disagree.
    """
    batch, time, width = by_frame.shape
    height, bands = by_state.shape[1], observed.shape[2]
    wanted = {
        "by_state": (by_state, (batch, height, width)),
        "weight": (weight, (2 * bands + 1, width)),
        "bias": (bias, (2 * bands + 1,)),
        "observed": (observed, (batch, time, bands)),
    }
    for name, (x, shape) in wanted.items():
        if x.shape != shape:
            raise ValueError(
                f"emissions: {name} must be {shape} for frames {(batch, time, width)}, got {tuple(x.shape)}"
            )
    dtype = torch.float64 if by_frame.dtype == torch.float64 else torch.float32
    # 2 MB of hidden activations stay in a core's cache and below what the allocator hands back to the system.
    tile = tile or (1 << 17 if by_frame.is_cuda else max(64, (1 << 19) // width))
    # Densities of narrow Gaussians need all of float32: half-precision means would be off by standard deviations.
    with torch.autocast(by_frame.device.type, enabled=False):
        operands = (x.to(dtype) for x in (by_frame, by_state, weight, bias, observed))
        return _Emissions.apply(*operands, frames, states, floor, tile, cutoff)


def gaussian(out: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 2 D + 1) → mean (..., D), standard deviation (..., D), transition logit (...)."""
    bands = (out.shape[-1] - 1) // 2
    return out[..., :bands], F.softplus(out[..., bands:-1]).clamp(min=floor), out[..., -1]


class _Emissions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        by_frame: Tensor,
        by_state: Tensor,
        weight: Tensor,
        bias: Tensor,
        observed: Tensor,
        frames: Tensor,
        states: Tensor,
        floor: float,
        tile: int,
        cutoff: float,
    ) -> tuple[Tensor, Tensor]:
        batch, time, _ = by_frame.shape
        emission = by_frame.new_zeros(batch, time, by_state.shape[1])
        transition = torch.zeros_like(emission)
        constant = 0.5 * observed.shape[2] * math.log(2 * math.pi)
        for row, (count, height) in enumerate(zip(frames.tolist(), states.tolist(), strict=True)):
            first = 0
            while first < count:
                # Long tiles of few states where few are possible: near both ends.
                last = min(count, first + max(1, tile // height))
                low, high = max(0, height - (count - first) - 1), min(height, last)
                hidden = torch.relu_(by_frame[row, first:last, None] + by_state[row, None, low:high])
                out = torch.addmm(bias, hidden.flatten(0, 1), weight.T).unflatten(0, hidden.shape[:2])
                mean, std, logit = gaussian(out, floor)
                z = (observed[row, first:last, None] - mean).div_(std).square_().sum(-1)
                emission[row, first:last, low:high] = -0.5 * z - std.log_().sum(-1) - constant
                transition[row, first:last, low:high] = logit
                first = last
        outside = ~readable(frames, states, time, by_state.shape[1])
        ctx.save_for_backward(by_frame, by_state, weight, bias, observed, outside)
        ctx.floor, ctx.tile, ctx.cutoff = floor, tile, cutoff
        return emission.masked_fill_(outside, 0.0), transition.masked_fill_(outside, 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_emission: Tensor, d_transition: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_emission.device.type, enabled=False):
            return (*_Emissions._gradients(ctx, d_emission, d_transition), None, None, None, None, None)

    @staticmethod
    def _gradients(ctx: Any, d_emission: Tensor, d_transition: Tensor) -> tuple[Tensor, ...]:
        by_frame, by_state, weight, bias, observed, outside = ctx.saved_tensors
        bands = observed.shape[2]
        size = torch.maximum(d_emission.abs(), d_transition.abs()).masked_fill_(outside, 0.0)
        row, t, n = (size > ctx.cutoff * size.max()).nonzero(as_tuple=True)
        at_frame, at_state = row * by_frame.shape[1] + t, row * by_state.shape[1] + n
        d_emission, d_transition = d_emission[row, t, n], d_transition[row, t, n]
        d_frame, d_state, d_weight, d_bias, d_observed = (
            torch.zeros_like(x) for x in (by_frame, by_state, weight, bias, observed)
        )
        frame, state, seen = by_frame.flatten(0, 1), by_state.flatten(0, 1), observed.flatten(0, 1)
        for first in range(0, len(row), ctx.tile):
            part = slice(first, first + ctx.tile)
            f, s, g = at_frame[part], at_state[part], d_emission[part, None]
            hidden = torch.relu_(frame[f].add_(state[s]))
            out = torch.addmm(bias, hidden, weight.T)
            mean, std, _ = gaussian(out, ctx.floor)
            z = (seen[f] - mean) / std
            d_mean = g * z / std
            open_ = F.softplus(out[:, bands:-1]) > ctx.floor
            d_s = torch.where(open_, g * (z.square() - 1) / std * torch.sigmoid(out[:, bands:-1]), 0.0)
            d_out = torch.cat([d_mean, d_s, d_transition[part, None]], 1)
            d_weight.addmm_(d_out.T, hidden)
            d_bias.add_(d_out.sum(0))
            d_hidden = (d_out @ weight).masked_fill_(hidden == 0, 0.0)
            d_frame.flatten(0, 1).index_add_(0, f, d_hidden)
            d_state.flatten(0, 1).index_add_(0, s, d_hidden)
            d_observed.flatten(0, 1).index_add_(0, f, -d_mean)
        return d_frame, d_state, d_weight, d_bias, d_observed
