"""h_t = a_t h_{t-1} + b_t fused in Triton: a program walks one block of channels along time, a tile of frames at a go.

Within a tile an associative scan joins the pairs (a, b); the state is carried between tiles in registers, so every
element is read and written once. The backward pass is the same recurrence against time.

Import needs triton; melstate.kernels.scan imports this file on first use.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from melstate.kernels.tiles_triton import put, span, tile

FRAMES, CHANNELS = 32, 64


@triton.jit
def _join(a, b, c, d):
    """First (a, b), then (c, d): h → c (a h + b) + d."""
    return a * c, c * b + d


@triton.jit
def _forward_kernel(a, b, h, start, final, ends, time, D,
                    MODE: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    row = tl.program_id(1)
    cols = tl.program_id(0) * BD + tl.arange(0, BD)
    first, length = span(row, time, ends, MODE)
    state = tl.load(start + row * D + cols, mask=cols < D, other=0.0)
    rows = tl.arange(0, ROWS)
    for t in range(0, length, ROWS):
        # Beyond the end a = 1, b = 0: the tile's last frame is the state.
        at = tile(a, D, first + t, length - t, cols, D, ROWS)
        at = tl.where((rows < length - t)[:, None], at, 1.0)
        bt = tile(b, D, first + t, length - t, cols, D, ROWS)
        product, local = tl.associative_scan((at, bt), 0, _join)
        found = product * state[None, :] + local
        put(h, D, first + t, length - t, cols, D, found, ROWS)
        state = tl.sum(tl.where((rows == ROWS - 1)[:, None], found, 0.0), 0)
    tl.store(final + row * D + cols, state, mask=cols < D)


@triton.jit
def _backward_kernel(a, h, start, dh, dfinal, da, db, dstart, ends, time, D,
                     MODE: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """carry = a_{t+1} g_{t+1}: what the frame after the tile sends back."""
    row = tl.program_id(1)
    cols = tl.program_id(0) * BD + tl.arange(0, BD)
    first, length = span(row, time, ends, MODE)
    rows = tl.arange(0, ROWS)
    carry = tl.load(dfinal + row * D + cols, mask=cols < D, other=0.0)
    state = tl.load(start + row * D + cols, mask=cols < D, other=0.0)
    for c in range(0, tl.cdiv(length, ROWS)):
        t = (tl.cdiv(length, ROWS) - 1 - c) * ROWS
        left = length - t
        last = tl.minimum(left, ROWS) - 1
        # The decay into the next frame; the tile's last frame gets the carry instead.
        after = tl.where((rows < last)[:, None], tile(a, D, first + t + 1, left - 1, cols, D, ROWS), 1.0)
        inflow = tile(dh, D, first + t, left, cols, D, ROWS)
        inflow += tl.where((rows == last)[:, None], carry[None, :], 0.0)
        after = tl.where((rows == last)[:, None], 0.0, after)
        _, grad = tl.associative_scan((after, inflow), 0, _join, reverse=True)
        before = tile(h, D, first + t - 1, left + 1, cols, D, ROWS)
        if t == 0:
            # The frame before the first belongs to another row: the given state stands in for it.
            mask = ((rows > 0) & (rows < left))[:, None] & (cols < D)[None, :]
            before = tl.load(h + (first - 1 + rows)[:, None] * D + cols[None, :], mask=mask, other=0.0).to(tl.float32)
            before += tl.where((rows == 0)[:, None], state[None, :], 0.0)
        put(da, D, first + t, left, cols, D, grad * before, ROWS)
        put(db, D, first + t, left, cols, D, grad, ROWS)
        at = tile(a, D, first + t, left, cols, D, ROWS)
        carry = tl.sum(tl.where((rows == 0)[:, None], grad * at, 0.0), 0)
    tl.store(dstart + row * D + cols, carry, mask=cols < D)


def scan_triton(
    a: Tensor, b: Tensor, state: Tensor, lengths: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`melstate.kernels.scan.scan` for checked operands; see there for shapes.

    Raises: ValueError: float64 operands.
    """
    if a.dtype == torch.float64:
        raise ValueError("scan: Triton computes in float32 and takes no float64 operands; use backend='chunked'")
    return _Scan.apply(a, b, state, lengths, cu_seqlens)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, state, lengths, cu_seqlens):
        a, b, state = a.contiguous(), b.contiguous(), state.contiguous()
        mode = 1 if lengths is not None else 2 if cu_seqlens is not None else 0
        ends = lengths if lengths is not None else cu_seqlens
        ends = state.new_zeros(1, dtype=torch.int32) if ends is None else ends.contiguous()
        # float32 where gradients follow: da multiplies by h.
        kept = any(ctx.needs_input_grad)
        h = (torch.zeros if mode == 1 else torch.empty)(
            b.shape, dtype=torch.float32 if kept else b.dtype, device=b.device
        )
        final = torch.empty_like(state)
        if state.numel():
            grid = triton.cdiv(a.shape[2], CHANNELS), state.shape[0]
            _forward_kernel[grid](
                a, b, h, state, final, ends, a.shape[1], a.shape[2], MODE=mode, ROWS=FRAMES, BD=CHANNELS, num_warps=4
            )
        ctx.save_for_backward(a, h, state, ends)
        ctx.mode = mode
        return h.to(b.dtype), final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dh, dfinal):
        a, h, state, ends = ctx.saved_tensors
        make = torch.zeros_like if ctx.mode == 1 else torch.empty_like
        da, db, dstart = make(a), make(a), torch.empty_like(state)
        if state.numel():
            grid = triton.cdiv(a.shape[2], CHANNELS), state.shape[0]
            _backward_kernel[grid](
                a, h, state, dh.contiguous(), dfinal.contiguous(), da, db, dstart, ends, a.shape[1], a.shape[2],
                MODE=ctx.mode, ROWS=FRAMES, BD=CHANNELS, num_warps=4,
            )  # fmt: skip
        return da, db, dstart, None, None
