"""Gaussian emissions and transition logits of a neural HMM, tile by tile: hidden activations are never all in memory.

    hidden = relu(a_t + e_n),   [mean | s | v] = W hidden + b,   std = max(softplus(s), floor)
    emission(t, n) = Σ_d log N(x_t; mean, std²),   transition(t, n) = v

a_t and e_n are the two parts of the split first layer: W_1 [h_t; y_n] + b_1 = a_t + e_n. A tile holds some frames and
the states that a path can be in during them. The backward pass makes a tile's activations anew, and only for pairs
(t, n) whose gradient matters: those that the HMM's posterior gives any weight, so small a share of all once a model has
begun to learn that keeping anything for it costs more than making it again.

Source: Mehta et al. 2021 (arXiv:2108.13320), section 3, for the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    # On a core, a tile's hidden activations and outputs are to stay in its cache.
    tile = tile or (1 << 17 if by_frame.is_cuda else max(64, min(512, (1 << 19) // width)))
    # Densities of narrow Gaussians need all of float32: half-precision means would be off by standard deviations.
    with torch.autocast(by_frame.device.type, enabled=False):
        operands = (x.to(dtype) for x in (by_frame, by_state, weight, bias, observed))
        return _Emissions.apply(*operands, frames, states, floor, tile, cutoff)


def gaussian(out: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """(..., 2 D + 1) → mean (..., D), standard deviation (..., D), transition logit (...)."""
    bands = (out.shape[-1] - 1) // 2
    return out[..., :bands], F.softplus(out[..., bands:-1]).clamp(min=floor), out[..., -1]


def _tiles(frames: Tensor, states: Tensor, size: int) -> Iterator[tuple[int, slice, slice]]:
    """(row, its frames, the states that they can be in), about `size` pairs each; long tiles of few states at both
    ends, where few are possible."""
    for row, (count, height) in enumerate(zip(frames.tolist(), states.tolist(), strict=True)):
        first = 0
        while first < count:
            last = min(count, first + max(1, size // height))
            yield row, slice(first, last), slice(max(0, height - (count - first) - 1), min(height, last))
            first = last


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
        emission = by_frame.new_zeros(*by_frame.shape[:2], by_state.shape[1])
        transition = torch.zeros_like(emission)
        constant = 0.5 * observed.shape[2] * math.log(2 * math.pi)
        for row, t, n in _tiles(frames, states, tile):
            hidden = torch.relu_(by_frame[row, t, None] + by_state[row, None, n])
            out = torch.addmm(bias, hidden.flatten(0, 1), weight.T).unflatten(0, hidden.shape[:2])
            mean, std, logit = gaussian(out, floor)
            z = (observed[row, t, None] - mean).div_(std).square_().sum(-1)
            emission[row, t, n] = -0.5 * z - std.log_().sum(-1) - constant
            transition[row, t, n] = logit
        outside = ~readable(frames, states, *emission.shape[1:])
        ctx.save_for_backward(by_frame, by_state, weight, bias, observed, outside)
        ctx.floor, ctx.tile, ctx.cutoff = floor, tile, cutoff
        return emission.masked_fill_(outside, 0.0), transition.masked_fill_(outside, 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_emission: Tensor, d_transition: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_emission.device.type, enabled=False):
            return (*_Emissions._gradients(ctx, d_emission, d_transition), *[None] * 5)

    @staticmethod
    def _gradients(ctx: Any, d_emission: Tensor, d_transition: Tensor) -> tuple[Tensor, ...]:
        by_frame, by_state, weight, bias, observed, outside = ctx.saved_tensors
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
            # index_select and threshold_backward are what indexing and masking amount to, several times as fast.
            hidden = torch.relu_(frame.index_select(0, f).add_(state.index_select(0, s)))
            mean, std, _ = gaussian(torch.addmm(bias, hidden, weight.T), ctx.floor)
            z = seen.index_select(0, f).sub_(mean).div_(std)
            d_mean = g / std * z
            # The logistic function is 1 − e^−softplus; no gradient flows below the floor.
            d_s = (z.square_().sub_(1) / std).mul_(g).mul_(-torch.expm1(-std)).masked_fill_(std <= ctx.floor, 0.0)
            d_out = torch.cat([d_mean, d_s, d_transition[part, None]], 1)
            d_weight.addmm_(d_out.T, hidden)
            d_bias.add_(d_out.sum(0))
            d_hidden = torch.ops.aten.threshold_backward(d_out @ weight, hidden, 0)
            d_frame.flatten(0, 1).index_add_(0, f, d_hidden)
            d_state.flatten(0, 1).index_add_(0, s, d_hidden)
            d_observed.flatten(0, 1).index_add_(0, f, d_mean, alpha=-1)
        return d_frame, d_state, d_weight, d_bias, d_observed
