"""Both sweeps of a left-to-right HMM in one launch: two programs an utterance, one along time, one against it.

A program owns all states of its row as one vector of float32 log-weights and gives every state its neighbour's by a
gather. After each frame it subtracts the largest and stores what it took away; the sum is for the caller to form.

Import needs triton; melstate.kernels.hmm imports this file on first use.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST = 8192  # states of a row that one program holds


@triton.jit
def _log_sigmoid(x):
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _log_sum(x, y):
    """log(e^x + e^y); −inf of two −inf."""
    top = tl.maximum(x, y)
    safe = tl.where(top == -float("inf"), 0.0, top)
    return safe + tl.log(tl.exp(x - safe) + tl.exp(y - safe))


@triton.jit
def _row(ptr, at, n, inside, N):
    """Frame `at` of a (frames, N) array; −inf outside."""
    return tl.load(ptr + at * N + n, mask=inside, other=-float("inf"))


@triton.jit
def _inside(t, n, frames, states):
    """Feasible states of frame t."""
    return (n <= t) & (states - 1 - n <= frames - 1 - t) & (n < states)


# Logits of impossible moves may be NaN: they are told apart by the weight they would start from.
@triton.jit
def _sweep_kernel(b, w, alpha, beta, taken, frames_ptr, states_ptr, T, N, BN: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    frames = tl.load(frames_ptr + row).to(tl.int32)
    states = tl.load(states_ptr + row).to(tl.int32)
    n = tl.arange(0, BN)
    b += row * T * N
    w += row * T * N
    if tl.program_id(1) == 0:
        alpha += row * T * N
        taken += row * T
        before = tl.maximum(n - 1, 0)
        x = tl.where(n == 0, _row(b, 0, n, n == 0, N), -float("inf"))
        for t in range(0, frames):
            inside = _inside(t, n, frames, states)
            if t > 0:
                logit = _row(w, t, n, n < N, N)
                moving = tl.where(x > -float("inf"), x + _log_sigmoid(logit), -float("inf"))
                moving = tl.where(n > 0, tl.gather(moving, before, 0), -float("inf"))
                staying = tl.where(x > -float("inf"), x + _log_sigmoid(-logit), -float("inf"))
                x = tl.where(inside, _row(b, t, n, inside, N) + _log_sum(staying, moving), -float("inf"))
            top = tl.max(x, 0)
            x -= top
            tl.store(alpha + t * N + n, x, mask=n < N)
            tl.store(taken + t, top)
    else:
        beta += row * T * N
        after = tl.minimum(n + 1, BN - 1)
        x = tl.where(n == states - 1, _row(b, frames - 1, n, n == states - 1, N), -float("inf"))
        for i in range(0, frames):
            t = frames - 1 - i
            inside = _inside(t, n, frames, states)
            if i > 0:
                logit = _row(w, t + 1, n, n < N, N)
                entered = tl.where(n < states - 1, tl.gather(x, after, 0), -float("inf"))
                moving = tl.where(entered > -float("inf"), entered + _log_sigmoid(logit), -float("inf"))
                staying = tl.where(x > -float("inf"), x + _log_sigmoid(-logit), -float("inf"))
                x = tl.where(inside, _row(b, t, n, inside, N) + _log_sum(staying, moving), -float("inf"))
            x -= tl.max(x, 0)
            tl.store(beta + t * N + n, x, mask=n < N)


def sweep_triton(
    emission: Tensor, logit: Tensor, frames: Tensor, states: Tensor, *, both: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised forward and backward log-weights; what frame 0 of `logit` holds is not read.

    Args:
        emission: (B, T, N) log-density.
        logit: (B, T, N) of the move into frame t.
        frames, states: (B,).
        both: whether to sweep against time too.
    Returns: forward (B, T, N); what normalising took from it (B, T); backward with emissions (B, T, N), empty unless
        `both`. Frames beyond a row's end hold nothing.
    Raises: ValueError: float64 operands, or more states than a program holds.
    """
    batch, time, width = emission.shape
    if emission.dtype == torch.float64:
        raise ValueError("hmm: Triton computes in float32 and takes no float64 operands; use backend='chunked'")
    if width > WIDEST:
        raise ValueError(f"hmm: Triton holds at most {WIDEST} states, got {width}; use backend='chunked'")
    emission, logit = emission.contiguous(), logit.contiguous()
    alpha = torch.zeros_like(emission)
    beta = torch.zeros_like(emission) if both else emission.new_empty(0)
    taken = emission.new_zeros(batch, time)
    block = max(32, triton.next_power_of_2(width))
    _sweep_kernel[(batch, 2 if both else 1)](
        emission, logit, alpha, beta, taken, frames, states, time, width,
        BN=block, num_warps=min(8, max(1, block // 128)),
    )  # fmt: skip
    return alpha, taken, beta
