"""Rows of frames in and out of registers, as every kernel along time reads and writes them."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def exp(x):
    return tl.exp2(x * LOG2E)


@triton.jit
def span(row, time, ends, MODE: tl.constexpr):
    """First token and frame count of a row: dense, padded (ends = lengths) or packed (ends = cu_seqlens)."""
    if MODE == 0:
        return (row * time).to(tl.int64), time
    elif MODE == 1:
        return (row * time).to(tl.int64), tl.load(ends + row).to(tl.int32)
    else:
        first = tl.load(ends + row)
        return first.to(tl.int64), (tl.load(ends + row + 1) - first).to(tl.int32)


@triton.jit
def tile(ptr, stride, first, left, cols, width, ROWS: tl.constexpr):
    """(ROWS, cols) float32 from `first` on; zeros beyond `left` rows and `width` columns."""
    rows = tl.arange(0, ROWS)
    mask = (rows < left)[:, None] & (cols < width)[None, :]
    return tl.load(ptr + (first + rows)[:, None] * stride + cols[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def put(ptr, stride, first, left, cols, width, x, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    mask = (rows < left)[:, None] & (cols < width)[None, :]
    tl.store(ptr + (first + rows)[:, None] * stride + cols[None, :], x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def vector(ptr, stride, token, cols, width):
    return tl.load(ptr + token * stride + cols, mask=cols < width, other=0.0).to(tl.float32)
