"""Gated linear attention fused in Triton: one pass forward, three sweeps backward, one launch per decoded frame.

Forward: a program owns a value block of one row's state (K × BV, float32, in registers) and walks along time.
Backward without stored states: a forward-time sweep gives dq, a reverse sweep dk and the key decays' gradient, another
dv and the value decays'. Programs of the first two own a key block and all values: nothing is summed by atomics.

A chunk of mild decay runs on the matrix units (formula in gla_chunked); otherwise its parts of 16 frames try the same;
what is still too strong goes frame by frame, by the definition. Decay gradients are
reverse-cumsum(q ⊙ dq - k ⊙ dk): under decay so strong that they vanish they carry the rounding of q ⊙ dq.

Import needs triton; melstate.kernels.gla imports this file on first use. Operands stay float32 under the interpreter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)
LIMIT = tl.constexpr(-24.0)  # see LEAF_DECAY of gla_chunked
FLOOR = tl.constexpr(-50.0)
PART = tl.constexpr(16)  # the smallest edge a matrix unit takes


@triton.jit
def _exp(x):
    return tl.exp2(x * LOG2E)


@triton.jit
def _span(row, time, ends, MODE: tl.constexpr):
    """First token and frame count of a row: dense, padded (ends = lengths) or packed (ends = cu_seqlens)."""
    if MODE == 0:
        return (row * time).to(tl.int64), time
    elif MODE == 1:
        return (row * time).to(tl.int64), tl.load(ends + row).to(tl.int32)
    else:
        first = tl.load(ends + row)
        return first.to(tl.int64), (tl.load(ends + row + 1) - first).to(tl.int32)


@triton.jit
def _tile(ptr, stride, first, left, cols, width, ROWS: tl.constexpr):
    """(ROWS, cols) float32 from `first` on; zeros beyond `left` rows and `width` columns."""
    rows = tl.arange(0, ROWS)
    mask = (rows < left)[:, None] & (cols < width)[None, :]
    return tl.load(ptr + (first + rows)[:, None] * stride + cols[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _put(ptr, stride, first, left, cols, width, x, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    mask = (rows < left)[:, None] & (cols < width)[None, :]
    tl.store(ptr + (first + rows)[:, None] * stride + cols[None, :], x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _vector(ptr, stride, token, cols, width):
    return tl.load(ptr + token * stride + cols, mask=cols < width, other=0.0).to(tl.float32)


@triton.jit
def _decay_tile(ptr, stride, first, left, cols, width, ROWS: tl.constexpr, HAS: tl.constexpr):
    if HAS:
        return tl.maximum(_tile(ptr, stride, first, left, cols, width, ROWS), FLOOR)
    else:
        return tl.zeros([ROWS, cols.shape[0]], tl.float32)


@triton.jit
def _decay_vector(ptr, stride, token, cols, width, HAS: tl.constexpr):
    if HAS:
        return _exp(tl.maximum(_vector(ptr, stride, token, cols, width), FLOOR))
    else:
        return tl.full([cols.shape[0]], 1.0, tl.float32)


@triton.jit
def _is_mild(f, fs, h, hs, first, left, kc, K, vc, V, ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr):
    """Whether `ROWS` frames from `first` decay little enough for the plain formula."""
    worst = 0.0
    if F:
        worst = tl.minimum(worst, tl.min(tl.sum(_decay_tile(f, fs, first, left, kc, K, ROWS, True), 0), 0))
    if HV:
        worst = tl.minimum(worst, tl.min(tl.sum(_decay_tile(h, hs, first, left, vc, V, ROWS, True), 0), 0))
    return worst >= LIMIT


@triton.jit
def _scaled(q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale,
            ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, STRICT: tl.constexpr):  # fmt: skip
    """The plain formula's operands: q e^G scale, k e^-G, v e^-Gv, the scales of each, and the chunk's decays."""
    ft = _decay_tile(f, fs, first, left, kc, K, ROWS, F)
    ht = _decay_tile(h, hs, first, left, vc, V, ROWS, HV)
    g = tl.cumsum(ft, 0)
    gv = tl.cumsum(ht, 0)
    q_scale = (_exp(g - ft) if STRICT else _exp(g)) * scale
    k_scale = _exp(-g)
    y_scale = _exp(gv)
    v_scale = _exp(-gv)
    qe = _tile(q, qs, first, left, kc, K, ROWS) * q_scale
    ke = _tile(k, ks, first, left, kc, K, ROWS) * k_scale
    ve = _tile(v, vs, first, left, vc, V, ROWS) * v_scale
    total = _exp(tl.sum(ft, 0))[:, None] * _exp(tl.sum(ht, 0))[None, :]
    return qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total


@triton.jit
def _dot(a, b, DOT: tl.constexpr):
    return tl.dot(a.to(DOT), b.to(DOT), input_precision="ieee")


@triton.jit
def _lower(ROWS: tl.constexpr, STRICT: tl.constexpr):
    """mask[t, s]: whether frame t reads frame s of its chunk."""
    t = tl.arange(0, ROWS)
    return t[:, None] > t[None, :] if STRICT else t[:, None] >= t[None, :]


@triton.jit
def _upper(ROWS: tl.constexpr, STRICT: tl.constexpr):
    """mask[s, t]: the transpose of `_lower`, built anew: a transposed product must not feed a product."""
    t = tl.arange(0, ROWS)
    return t[:, None] < t[None, :] if STRICT else t[:, None] <= t[None, :]


@triton.jit
def _forward_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first, left, kc, K, vc, V, scale,
                   ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr,
                   DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = _scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    scores = tl.where(_lower(ROWS, U), _dot(qe, tl.trans(ke), DOT), 0.0)
    out = (_dot(scores, ve, DOT) + _dot(qe, S, DOT)) * y_scale
    if U:
        own = _tile(q, qs, first, left, kc, K, ROWS) * _tile(k, ks, first, left, kc, K, ROWS)
        own = tl.sum(own * _vector(u, 0, 0, kc, K)[None, :], 1) * scale
        out += own[:, None] * ve
    _put(y, ys, first, left, vc, V, out, ROWS)
    return (S + _dot(tl.trans(ke), ve, DOT)) * total


@triton.jit
def _forward_step(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, token, kc, K, vc, V, scale,
                  F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    qt = _vector(q, qs, token, kc, K) * scale
    kt = _vector(k, ks, token, kc, K)
    vt = _vector(v, vs, token, vc, V)
    decay = _decay_vector(f, fs, token, kc, K, F)[:, None] * _decay_vector(h, hs, token, vc, V, HV)[None, :]
    new = kt[:, None] * vt[None, :]
    after = S * decay + new
    read = after
    if U:
        read = S + new * _vector(u, 0, 0, kc, K)[:, None]
    out = tl.sum(qt[:, None] * read, 0)
    tl.store(y + token * ys + vc, out.to(y.dtype.element_ty), mask=vc < V)
    return after


@triton.jit
def _forward_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, start, final, ends, time, scale,
                    H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
                    F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.arange(0, BK)
    vc = tl.program_id(0) * BV + tl.arange(0, BV)
    first, length = _span(row, time, ends, MODE)
    q += head * K
    k += head * K
    v += head * V
    y += head * V
    f += head * K
    h += head * V
    u += head * K
    at = (tl.program_id(1).to(tl.int64) * K + kc)[:, None] * V + vc[None, :]
    inside = (kc < K)[:, None] & (vc < V)[None, :]
    S = tl.load(start + at, mask=inside, other=0.0).to(tl.float32)
    for t in range(0, length, BC):
        if _is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            S = _forward_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first + t, length - t,
                               kc, K, vc, V, scale, BC, F, HV, U, DOT)  # fmt: skip
        else:
            for p in range(t, tl.minimum(t + BC, length), PART):
                if _is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    S = _forward_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first + p, length - p,
                                       kc, K, vc, V, scale, PART, F, HV, U, DOT)  # fmt: skip
                else:
                    for i in range(p, tl.minimum(p + PART, length)):
                        S = _forward_step(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first + i,
                                          kc, K, vc, V, scale, F, HV, U)  # fmt: skip
    tl.store(final + at, S, mask=inside)


@triton.jit
def _dq_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first, left, kc, K, vc, V, scale, H,
              ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = _scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    dout = _tile(dy, ds, first, left, vc, V, ROWS)
    dscores = tl.where(_lower(ROWS, U), _dot(dout * y_scale, tl.trans(ve), DOT), 0.0)
    found = (_dot(dscores, ke, DOT) + _dot(dout * y_scale, tl.trans(S), DOT)) * q_scale
    if U:
        own = tl.sum(dout * ve, 1) * scale
        found += own[:, None] * (ke * _exp(tl.cumsum(_decay_tile(f, fs, first, left, kc, K, ROWS, F), 0))
                                 * _vector(u, 0, 0, kc, K)[None, :])  # fmt: skip
    _put(dq, H * K, first, left, kc, K, found, ROWS)
    return (S + _dot(tl.trans(ke), ve, DOT)) * total


@triton.jit
def _dq_step(S, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, token, kc, K, vc, V, scale, H,
             F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    new = _vector(k, ks, token, kc, K)[:, None] * _vector(v, vs, token, vc, V)[None, :]
    decay = _decay_vector(f, fs, token, kc, K, F)[:, None] * _decay_vector(h, hs, token, vc, V, HV)[None, :]
    after = S * decay + new
    read = after
    if U:
        read = S + new * _vector(u, 0, 0, kc, K)[:, None]
    found = tl.sum(read * _vector(dy, ds, token, vc, V)[None, :], 1) * scale
    tl.store(dq + token * H * K + kc, found, mask=kc < K)
    return after


@triton.jit
def _dq_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, start, ends, time, scale,
               H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
               F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Along time with a key block of the state."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.program_id(0) * BK + tl.arange(0, BK)
    vc = tl.arange(0, BV)
    first, length = _span(row, time, ends, MODE)
    q += head * K
    k += head * K
    v += head * V
    f += head * K
    h += head * V
    u += head * K
    dy += head * V
    dq += head * K
    at = (tl.program_id(1).to(tl.int64) * K + kc)[:, None] * V + vc[None, :]
    S = tl.load(start + at, mask=(kc < K)[:, None] & (vc < V)[None, :], other=0.0).to(tl.float32)
    for t in range(0, length, BC):
        if _is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            S = _dq_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first + t, length - t,
                          kc, K, vc, V, scale, H, BC, F, HV, U, DOT)  # fmt: skip
        else:
            for p in range(t, tl.minimum(t + BC, length), PART):
                if _is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    S = _dq_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first + p, length - p,
                                  kc, K, vc, V, scale, H, PART, F, HV, U, DOT)  # fmt: skip
                else:
                    for i in range(p, tl.minimum(p + PART, length)):
                        S = _dq_step(S, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first + i,
                                     kc, K, vc, V, scale, H, F, HV, U)  # fmt: skip


@triton.jit
def _dk_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df, first, left, kc, K, vc, V, scale, H,
              ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = _scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    raw = _tile(dy, ds, first, left, vc, V, ROWS)
    dout = raw * y_scale
    D = D * total
    dscores = tl.where(_upper(ROWS, U), _dot(ve, tl.trans(dout), DOT), 0.0)
    found = (_dot(dscores, qe, DOT) + _dot(ve, tl.trans(D), DOT)) * k_scale
    qt = _tile(q, qs, first, left, kc, K, ROWS)
    kt = _tile(k, ks, first, left, kc, K, ROWS)
    gain = qt * _tile(dq, H * K, first, left, kc, K, ROWS)
    if U:
        own = (tl.sum(raw * ve, 1) * scale)[:, None] * _vector(u, 0, 0, kc, K)[None, :]
        # The bonus reads no decay: its share of q ⊙ dq stays out. Frame t then reaches decays before t only.
        gain -= own * qt * kt
        loss = kt * found
        _put(df, H * K, first, left, kc, K, tl.cumsum(gain - loss, 0, reverse=True) - gain + carry[None, :], ROWS)
        carry += tl.sum(gain - loss, 0)
        found += own * qt
    elif F:
        gain -= kt * found
        _put(df, H * K, first, left, kc, K, tl.cumsum(gain, 0, reverse=True) + carry[None, :], ROWS)
        carry += tl.sum(gain, 0)
    _put(dk, H * K, first, left, kc, K, found, ROWS)
    return D + _dot(tl.trans(qe), dout, DOT), carry


@triton.jit
def _dk_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df, token, kc, K, vc, V, scale, H,
             F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    qt = _vector(q, qs, token, kc, K)
    kt = _vector(k, ks, token, kc, K)
    vt = _vector(v, vs, token, vc, V)
    dout = _vector(dy, ds, token, vc, V)
    decay = _decay_vector(f, fs, token, kc, K, F)[:, None] * _decay_vector(h, hs, token, vc, V, HV)[None, :]
    read = (qt * scale)[:, None] * dout[None, :]
    gain = qt * _vector(dq, H * K, token, kc, K)
    if U:
        own = tl.sum(dout * vt, 0) * scale * _vector(u, 0, 0, kc, K)
        found = tl.sum(D * vt[None, :], 1)
        gain -= own * qt * kt
        tl.store(df + token * H * K + kc, carry - kt * found, mask=kc < K)
        carry += gain - kt * found
        found += own * qt
        D = D * decay + read
    else:
        D += read
        found = tl.sum(D * vt[None, :], 1)
        if F:
            carry += gain - kt * found
            tl.store(df + token * H * K + kc, carry, mask=kc < K)
        D = D * decay
    tl.store(dk + token * H * K + kc, found.to(dk.dtype.element_ty), mask=kc < K)
    return D, carry


@triton.jit
def _dk_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df, final, dfinal, dstart, ends, time, scale,
               H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
               F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Against time with a key block of the state's gradient."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.program_id(0) * BK + tl.arange(0, BK)
    vc = tl.arange(0, BV)
    first, length = _span(row, time, ends, MODE)
    q += head * K
    k += head * K
    v += head * V
    f += head * K
    h += head * V
    u += head * K
    dy += head * V
    dq += head * K
    dk += head * K
    df += head * K
    at = (tl.program_id(1).to(tl.int64) * K + kc)[:, None] * V + vc[None, :]
    inside = (kc < K)[:, None] & (vc < V)[None, :]
    D = tl.load(dfinal + at, mask=inside, other=0.0).to(tl.float32)
    carry = tl.sum(D * tl.load(final + at, mask=inside, other=0.0), 1)
    for c in range(0, tl.cdiv(length, BC)):
        t = (tl.cdiv(length, BC) - 1 - c) * BC
        if _is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            D, carry = _dk_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df,
                                 first + t, length - t, kc, K, vc, V, scale, H, BC, F, HV, U, DOT)  # fmt: skip
        else:
            parts = tl.cdiv(tl.minimum(BC, length - t), PART)
            for b in range(0, parts):
                p = t + (parts - 1 - b) * PART
                if _is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    D, carry = _dk_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df,
                                         first + p, length - p, kc, K, vc, V, scale, H,
                                         PART, F, HV, U, DOT)  # fmt: skip
                else:
                    frames = tl.minimum(PART, length - p)
                    for i in range(0, frames):
                        D, carry = _dk_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df,
                                            first + p + frames - 1 - i, kc, K, vc, V, scale, H, F, HV, U)  # fmt: skip
    tl.store(dstart + at, D, mask=inside)


@triton.jit
def _dv_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh, first, left, kc, K, vc, V, scale, H,
              ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = _scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    raw = _tile(dy, ds, first, left, vc, V, ROWS)
    dout = raw * y_scale
    D = D * total
    scores = tl.where(_upper(ROWS, U), _dot(ke, tl.trans(qe), DOT), 0.0)
    found = (_dot(scores, dout, DOT) + _dot(ke, D, DOT)) * v_scale
    if U:
        own = _tile(q, qs, first, left, kc, K, ROWS) * _tile(k, ks, first, left, kc, K, ROWS)
        found += (tl.sum(own * _vector(u, 0, 0, kc, K)[None, :], 1) * scale)[:, None] * raw
    if HV:
        gain = raw * _tile(y, H * V, first, left, vc, V, ROWS) - found * _tile(v, vs, first, left, vc, V, ROWS)
        _put(dh, H * V, first, left, vc, V, tl.cumsum(gain, 0, reverse=True) + carry[None, :], ROWS)
        carry += tl.sum(gain, 0)
    _put(dv, H * V, first, left, vc, V, found, ROWS)
    return D + _dot(tl.trans(qe), dout, DOT), carry


@triton.jit
def _dv_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh, token, kc, K, vc, V, scale, H,
             F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    qt = _vector(q, qs, token, kc, K) * scale
    kt = _vector(k, ks, token, kc, K)
    dout = _vector(dy, ds, token, vc, V)
    decay = _decay_vector(f, fs, token, kc, K, F)[:, None] * _decay_vector(h, hs, token, vc, V, HV)[None, :]
    read = qt[:, None] * dout[None, :]
    if U:
        found = tl.sum(D * kt[:, None], 0) + tl.sum(qt * kt * _vector(u, 0, 0, kc, K), 0) * dout
        D = D * decay + read
    else:
        D += read
        found = tl.sum(D * kt[:, None], 0)
        if HV:
            carry += dout * _vector(y, H * V, token, vc, V) - found * _vector(v, vs, token, vc, V)
            tl.store(dh + token * H * V + vc, carry, mask=vc < V)
        D = D * decay
    tl.store(dv + token * H * V + vc, found.to(dv.dtype.element_ty), mask=vc < V)
    return D, carry


@triton.jit
def _dv_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh, final, dfinal, ends, time, scale,
               H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
               F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Against time with a value block of the state's gradient."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.arange(0, BK)
    vc = tl.program_id(0) * BV + tl.arange(0, BV)
    first, length = _span(row, time, ends, MODE)
    q += head * K
    k += head * K
    v += head * V
    f += head * K
    h += head * V
    u += head * K
    y += head * V
    dy += head * V
    dv += head * V
    dh += head * V
    at = (tl.program_id(1).to(tl.int64) * K + kc)[:, None] * V + vc[None, :]
    inside = (kc < K)[:, None] & (vc < V)[None, :]
    D = tl.load(dfinal + at, mask=inside, other=0.0).to(tl.float32)
    carry = tl.sum(D * tl.load(final + at, mask=inside, other=0.0), 0)
    for c in range(0, tl.cdiv(length, BC)):
        t = (tl.cdiv(length, BC) - 1 - c) * BC
        if _is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            D, carry = _dv_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh,
                                 first + t, length - t, kc, K, vc, V, scale, H, BC, F, HV, U, DOT)  # fmt: skip
        else:
            parts = tl.cdiv(tl.minimum(BC, length - t), PART)
            for b in range(0, parts):
                p = t + (parts - 1 - b) * PART
                if _is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    D, carry = _dv_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh,
                                         first + p, length - p, kc, K, vc, V, scale, H,
                                         PART, F, HV, U, DOT)  # fmt: skip
                else:
                    frames = tl.minimum(PART, length - p)
                    for i in range(0, frames):
                        D, carry = _dv_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh,
                                            first + p + frames - 1 - i, kc, K, vc, V, scale, H, F, HV, U)  # fmt: skip


@triton.jit
def _step_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, start, final, scale, H, K, V,
                 BK: tl.constexpr, BV: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    """One frame of decoding: the state is read and written once."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.arange(0, BK)
    vc = tl.program_id(0) * BV + tl.arange(0, BV)
    at = (tl.program_id(1).to(tl.int64) * K + kc)[:, None] * V + vc[None, :]
    inside = (kc < K)[:, None] & (vc < V)[None, :]
    S = tl.load(start + at, mask=inside, other=0.0).to(tl.float32)
    S = _forward_step(S, q + head * K, qs, k + head * K, ks, v + head * V, vs, f + head * K, fs, h + head * V, hs,
                      u + head * K, y + head * V, ys, row.to(tl.int64), kc, K, vc, V, scale, F, HV, U)  # fmt: skip
    tl.store(final + at, S, mask=inside)


def gla_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    bonus: Tensor | None,
    state: Tensor,
    scale: float,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`melstate.kernels.gla.gla` for checked operands; see there for shapes.

    Raises: ValueError: float64 operands, or key or value widths whose state does not fit into registers.
    """
    if q.dtype == torch.float64:
        raise ValueError("gla: Triton computes in float32 and takes no float64 operands; use backend='chunked'")
    if max(q.shape[3], v.shape[3]) > 256:
        raise ValueError(
            f"gla: Triton takes at most 256 key and value channels per head, got {q.shape[3]} and {v.shape[3]}; "
            "use more heads or backend='chunked'"
        )
    return _Gla.apply(q, k, v, log_decay, value_log_decay, bonus, state, scale, lengths, cu_seqlens)


class _Gla(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, f, h, u, state, scale, lengths, cu_seqlens):
        launch = _Launch(q, k, v, f, h, u, state, scale, lengths, cu_seqlens)
        # Decay gradients of the values need y; rounding it to bfloat16 would drown them.
        exact = h is not None and any(ctx.needs_input_grad)
        y = launch.output(v, torch.float32 if exact else v.dtype)
        final = torch.empty_like(state, memory_format=torch.contiguous_format)
        if launch.time == 1 and lengths is None and cu_seqlens is None:
            launch.step(y, final)
        else:
            launch.forward(y, final)
        ctx.launch_scale = scale
        ctx.save_for_backward(q, k, v, f, h, u, state, lengths, cu_seqlens, final, y if exact else None)
        return y.to(v.dtype), final.clone() if any(ctx.needs_input_grad) else final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, dfinal):
        q, k, v, f, h, u, state, lengths, cu_seqlens, final, y = ctx.saved_tensors
        launch = _Launch(q, k, v, f, h, u, state, ctx.launch_scale, lengths, cu_seqlens)
        return *launch.backward(y, dy, final, dfinal), None, None, None


class _Launch:
    """Operands as the kernels take them, and the choice of blocks."""

    def __init__(self, q, k, v, f, h, u, state, scale, lengths, cu_seqlens) -> None:
        self.batch, self.time, self.heads, self.keys = q.shape
        self.values, self.scale, self.u = v.shape[3], scale, u
        self.q, self.k, self.v = _rows(q), _rows(k), _rows(v)
        self.f, self.h = (None if x is None else _rows(x) for x in (f, h))
        self.state = state.contiguous()
        self.programs = state.shape[0] * self.heads
        self.mode = 1 if lengths is not None else 2 if cu_seqlens is not None else 0
        ends = lengths if lengths is not None else cu_seqlens
        self.ends = q.new_zeros(1, dtype=torch.int32) if ends is None else ends.contiguous()
        # A missing operand is never read; any pointer stands in.
        operands: list[Tensor | int] = []
        for x in (self.q, self.k, self.v, self.f, self.h):
            operands += [self.q, 0] if x is None else [x, x.stride(1)]
        self.operands = [*operands, self.q if u is None else u.contiguous()]
        low = q.dtype == torch.bfloat16 and not triton.knobs.runtime.interpret
        self.flags = {"F": f is not None, "HV": h is not None, "U": u is not None}
        self.dot = {"DOT": tl.bfloat16 if low else tl.float32}

    def output(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Contiguous memory for a result: zeroed where padding stays unwritten."""
        make = torch.zeros if self.mode == 1 else torch.empty
        return make(like.shape, dtype=dtype, device=like.device)

    def forward(self, y: Tensor, final: Tensor) -> None:
        keys, values, options = self.blocks(whole_keys=True)
        grid = triton.cdiv(self.values, values), self.programs
        self.run(_forward_kernel, grid, keys, values, options,
                 *self.operands, y, y.stride(1), self.state, final, self.ends, self.time, self.scale)  # fmt: skip

    def step(self, y: Tensor, final: Tensor) -> None:
        keys, values = _block(self.keys), min(_block(self.values), 32)
        grid = triton.cdiv(self.values, values), self.programs
        _step_kernel[grid](
            *self.operands, y, y.stride(1), self.state, final, self.scale, self.heads, self.keys, self.values,
            BK=keys, BV=values, **self.flags, num_warps=4,
        )  # fmt: skip

    def backward(self, y: Tensor | None, dy: Tensor, final: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
        dy, dfinal = _rows(dy), dfinal.contiguous()
        q, k, v, f, h = self.q, self.k, self.v, self.f, self.h
        # float32: decay gradients are small differences of products with dq.
        dq, dk, dv = self.output(q, torch.float32), self.output(k, k.dtype), self.output(v, v.dtype)
        df = dq if f is None else self.output(f, torch.float32)
        dh = dv if h is None else self.output(h, torch.float32)
        dstart = torch.empty_like(self.state)
        keys, values, options = self.blocks(whole_keys=False)
        grid = triton.cdiv(self.keys, keys), self.programs
        tail = self.ends, self.time, self.scale
        self.run(_dq_kernel, grid, keys, values, options,
                 *self.operands, dy, dy.stride(1), dq, self.state, *tail)  # fmt: skip
        self.run(_dk_kernel, grid, keys, values, options,
                 *self.operands, dy, dy.stride(1), dq, dk, df, final, dfinal, dstart, *tail)  # fmt: skip
        keys, values, options = self.blocks(whole_keys=True)
        grid = triton.cdiv(self.values, values), self.programs
        self.run(_dv_kernel, grid, keys, values, options,
                 *self.operands, dy if y is None else y, dy, dy.stride(1), dv, dh, final, dfinal, *tail)  # fmt: skip
        du = None if self.u is None else self.bonus_gradient(dy)
        return (dq.to(q.dtype), dk, dv, None if f is None else df.to(f.dtype), None if h is None else dh.to(h.dtype),
                du, dstart)  # fmt: skip

    def bonus_gradient(self, dy: Tensor) -> Tensor:
        score = (dy.float() * self.v.float()).sum(-1, keepdim=True) * self.scale
        part = self.q.float() * self.k.float() * score
        if self.mode == 1:
            real = torch.arange(self.time, device=dy.device) < self.ends[:, None]
            part = torch.where(real[:, :, None, None], part, 0)
        return part.sum((0, 1)).to(self.u.dtype)

    def blocks(self, *, whole_keys: bool) -> tuple[int, int, dict[str, int]]:
        """Key block, value block, and launch options: one side whole, the other in blocks of at most 64.

        The chunk shrinks as the whole side grows, so that the tiles of a program stay in registers.
        """
        whole = _block(self.keys if whole_keys else self.values)
        part = min(_block(self.values if whole_keys else self.keys), 64 if whole <= 128 else 32)
        chunk = 64 if whole <= 64 else 32 if whole <= 128 else 16
        options = {"BC": chunk, "num_warps": 4 if whole <= 64 else 8}
        return (whole, part, options) if whole_keys else (part, whole, options)

    def run(self, kernel, grid, keys: int, values: int, options: dict[str, int], *arguments) -> None:
        if not self.programs:
            return
        kernel[grid](
            *arguments, self.heads, self.keys, self.values, MODE=self.mode, BK=keys, BV=values, **options,
            **self.flags, **self.dot,
        )  # fmt: skip


def _block(width: int) -> int:
    return max(16, triton.next_power_of_2(width))


def _rows(x: Tensor) -> Tensor:
    """x (B, T, H, D) such that heads lie side by side and rows follow each other: one stride per token is enough."""
    batch, time, _, width = x.shape
    sides = x.stride(3) == 1 and x.stride(2) == width
    return x if sides and (batch == 1 or x.stride(0) == time * x.stride(1)) else x.contiguous()
