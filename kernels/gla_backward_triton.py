"""Gated linear attention backward without stored states: three sweeps.

A forward-time sweep gives dq, a reverse sweep dk and the key decays' gradient, another dv and the value decays'.
Programs of the first two own a key block and all values: nothing is summed by atomics. Decay gradients are
reverse-cumsum(q ⊙ dq - k ⊙ dk): under decay so strong that they vanish they carry the rounding of q ⊙ dq.
"""

from __future__ import annotations

import triton
import triton.language as tl

from melstate.kernels.gla_chunks_triton import decay_tile, decay_vector, dot, is_mild, lower, scaled, upper
from melstate.kernels.gla_forward_triton import PART
from melstate.kernels.tiles_triton import exp, put, span, tile, vector


@triton.jit
def _dq_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first, left, kc, K, vc, V, scale, H,
              ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    dout = tile(dy, ds, first, left, vc, V, ROWS)
    dscores = tl.where(lower(ROWS, U), dot(dout * y_scale, tl.trans(ve), DOT), 0.0)
    found = (dot(dscores, ke, DOT) + dot(dout * y_scale, tl.trans(S), DOT)) * q_scale
    if U:
        own = tl.sum(dout * ve, 1) * scale
        found += own[:, None] * (ke * exp(tl.cumsum(decay_tile(f, fs, first, left, kc, K, ROWS, F), 0))
                                 * vector(u, 0, 0, kc, K)[None, :])  # fmt: skip
    put(dq, H * K, first, left, kc, K, found, ROWS)
    return (S + dot(tl.trans(ke), ve, DOT)) * total


@triton.jit
def _dq_step(S, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, token, kc, K, vc, V, scale, H,
             F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    new = vector(k, ks, token, kc, K)[:, None] * vector(v, vs, token, vc, V)[None, :]
    decay = decay_vector(f, fs, token, kc, K, F)[:, None] * decay_vector(h, hs, token, vc, V, HV)[None, :]
    after = S * decay + new
    read = after
    if U:
        read = S + new * vector(u, 0, 0, kc, K)[:, None]
    found = tl.sum(read * vector(dy, ds, token, vc, V)[None, :], 1) * scale
    tl.store(dq + token * H * K + kc, found, mask=kc < K)
    return after


@triton.jit
def dq_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, start, ends, time, scale,
               H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
               F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Along time with a key block of the state."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.program_id(0) * BK + tl.arange(0, BK)
    vc = tl.arange(0, BV)
    first, length = span(row, time, ends, MODE)
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
        if is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            S = _dq_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first + t, length - t,
                          kc, K, vc, V, scale, H, BC, F, HV, U, DOT)  # fmt: skip
        else:
            for p in range(t, tl.minimum(t + BC, length), PART):
                if is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    S = _dq_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first + p, length - p,
                                  kc, K, vc, V, scale, H, PART, F, HV, U, DOT)  # fmt: skip
                else:
                    for i in range(p, tl.minimum(p + PART, length)):
                        S = _dq_step(S, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, first + i,
                                     kc, K, vc, V, scale, H, F, HV, U)  # fmt: skip


@triton.jit
def _dk_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df, first, left, kc, K, vc, V, scale, H,
              ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    raw = tile(dy, ds, first, left, vc, V, ROWS)
    dout = raw * y_scale
    D = D * total
    dscores = tl.where(upper(ROWS, U), dot(ve, tl.trans(dout), DOT), 0.0)
    found = (dot(dscores, qe, DOT) + dot(ve, tl.trans(D), DOT)) * k_scale
    qt = tile(q, qs, first, left, kc, K, ROWS)
    kt = tile(k, ks, first, left, kc, K, ROWS)
    gain = qt * tile(dq, H * K, first, left, kc, K, ROWS)
    if U:
        own = (tl.sum(raw * ve, 1) * scale)[:, None] * vector(u, 0, 0, kc, K)[None, :]
        # The bonus reads no decay: its share of q ⊙ dq stays out. Frame t then reaches decays before t only.
        gain -= own * qt * kt
        loss = kt * found
        put(df, H * K, first, left, kc, K, tl.cumsum(gain - loss, 0, reverse=True) - gain + carry[None, :], ROWS)
        carry += tl.sum(gain - loss, 0)
        found += own * qt
    elif F:
        gain -= kt * found
        put(df, H * K, first, left, kc, K, tl.cumsum(gain, 0, reverse=True) + carry[None, :], ROWS)
        carry += tl.sum(gain, 0)
    put(dk, H * K, first, left, kc, K, found, ROWS)
    return D + dot(tl.trans(qe), dout, DOT), carry


@triton.jit
def _dk_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df, token, kc, K, vc, V, scale, H,
             F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    qt = vector(q, qs, token, kc, K)
    kt = vector(k, ks, token, kc, K)
    vt = vector(v, vs, token, vc, V)
    dout = vector(dy, ds, token, vc, V)
    decay = decay_vector(f, fs, token, kc, K, F)[:, None] * decay_vector(h, hs, token, vc, V, HV)[None, :]
    read = (qt * scale)[:, None] * dout[None, :]
    gain = qt * vector(dq, H * K, token, kc, K)
    if U:
        own = tl.sum(dout * vt, 0) * scale * vector(u, 0, 0, kc, K)
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
def dk_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df, final, dfinal, dstart, ends, time, scale,
               H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
               F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Against time with a key block of the state's gradient."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.program_id(0) * BK + tl.arange(0, BK)
    vc = tl.arange(0, BV)
    first, length = span(row, time, ends, MODE)
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
        if is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            D, carry = _dk_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, dy, ds, dq, dk, df,
                                 first + t, length - t, kc, K, vc, V, scale, H, BC, F, HV, U, DOT)  # fmt: skip
        else:
            parts = tl.cdiv(tl.minimum(BC, length - t), PART)
            for b in range(0, parts):
                p = t + (parts - 1 - b) * PART
                if is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
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
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    raw = tile(dy, ds, first, left, vc, V, ROWS)
    dout = raw * y_scale
    D = D * total
    scores = tl.where(upper(ROWS, U), dot(ke, tl.trans(qe), DOT), 0.0)
    found = (dot(scores, dout, DOT) + dot(ke, D, DOT)) * v_scale
    if U:
        own = tile(q, qs, first, left, kc, K, ROWS) * tile(k, ks, first, left, kc, K, ROWS)
        found += (tl.sum(own * vector(u, 0, 0, kc, K)[None, :], 1) * scale)[:, None] * raw
    if HV:
        gain = raw * tile(y, H * V, first, left, vc, V, ROWS) - found * tile(v, vs, first, left, vc, V, ROWS)
        put(dh, H * V, first, left, vc, V, tl.cumsum(gain, 0, reverse=True) + carry[None, :], ROWS)
        carry += tl.sum(gain, 0)
    put(dv, H * V, first, left, vc, V, found, ROWS)
    return D + dot(tl.trans(qe), dout, DOT), carry


@triton.jit
def _dv_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh, token, kc, K, vc, V, scale, H,
             F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    qt = vector(q, qs, token, kc, K) * scale
    kt = vector(k, ks, token, kc, K)
    dout = vector(dy, ds, token, vc, V)
    decay = decay_vector(f, fs, token, kc, K, F)[:, None] * decay_vector(h, hs, token, vc, V, HV)[None, :]
    read = qt[:, None] * dout[None, :]
    if U:
        found = tl.sum(D * kt[:, None], 0) + tl.sum(qt * kt * vector(u, 0, 0, kc, K), 0) * dout
        D = D * decay + read
    else:
        D += read
        found = tl.sum(D * kt[:, None], 0)
        if HV:
            carry += dout * vector(y, H * V, token, vc, V) - found * vector(v, vs, token, vc, V)
            tl.store(dh + token * H * V + vc, carry, mask=vc < V)
        D = D * decay
    tl.store(dv + token * H * V + vc, found.to(dv.dtype.element_ty), mask=vc < V)
    return D, carry


@triton.jit
def dv_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh, final, dfinal, ends, time, scale,
               H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
               F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    """Against time with a value block of the state's gradient."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.arange(0, BK)
    vc = tl.program_id(0) * BV + tl.arange(0, BV)
    first, length = span(row, time, ends, MODE)
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
        if is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            D, carry = _dv_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh,
                                 first + t, length - t, kc, K, vc, V, scale, H, BC, F, HV, U, DOT)  # fmt: skip
        else:
            parts = tl.cdiv(tl.minimum(BC, length - t), PART)
            for b in range(0, parts):
                p = t + (parts - 1 - b) * PART
                if is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    D, carry = _dv_block(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh,
                                         first + p, length - p, kc, K, vc, V, scale, H,
                                         PART, F, HV, U, DOT)  # fmt: skip
                else:
                    frames = tl.minimum(PART, length - p)
                    for i in range(0, frames):
                        D, carry = _dv_step(D, carry, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, dy, ds, dv, dh,
                                            first + p + frames - 1 - i, kc, K, vc, V, scale, H, F, HV, U)  # fmt: skip
