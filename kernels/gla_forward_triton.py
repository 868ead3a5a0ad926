"""Gated linear attention forward: a program owns a value block of one row's state and walks along time.

The state (K × BV, float32) stays in registers. A chunk of mild decay runs on the matrix units (formula in gla_chunked);
otherwise its parts of 16 frames try the same; what is still too strong goes frame by frame, by the definition.
"""

from __future__ import annotations

import triton
import triton.language as tl

from melstate.kernels.gla_chunks_triton import decay_vector, dot, is_mild, lower, scaled
from melstate.kernels.tiles_triton import put, span, tile, vector

PART = tl.constexpr(16)  # the smallest edge a matrix unit takes


@triton.jit
def _forward_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first, left, kc, K, vc, V, scale,
                   ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr,
                   DOT: tl.constexpr):  # fmt: skip
    qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total = scaled(
        q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale, ROWS, F, HV, U
    )
    scores = tl.where(lower(ROWS, U), dot(qe, tl.trans(ke), DOT), 0.0)
    out = (dot(scores, ve, DOT) + dot(qe, S, DOT)) * y_scale
    if U:
        own = tile(q, qs, first, left, kc, K, ROWS) * tile(k, ks, first, left, kc, K, ROWS)
        own = tl.sum(own * vector(u, 0, 0, kc, K)[None, :], 1) * scale
        out += own[:, None] * ve
    put(y, ys, first, left, vc, V, out, ROWS)
    return (S + dot(tl.trans(ke), ve, DOT)) * total


@triton.jit
def forward_step(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, token, kc, K, vc, V, scale,
                  F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    qt = vector(q, qs, token, kc, K) * scale
    kt = vector(k, ks, token, kc, K)
    vt = vector(v, vs, token, vc, V)
    decay = decay_vector(f, fs, token, kc, K, F)[:, None] * decay_vector(h, hs, token, vc, V, HV)[None, :]
    new = kt[:, None] * vt[None, :]
    after = S * decay + new
    read = after
    if U:
        read = S + new * vector(u, 0, 0, kc, K)[:, None]
    out = tl.sum(qt[:, None] * read, 0)
    tl.store(y + token * ys + vc, out.to(y.dtype.element_ty), mask=vc < V)
    return after


@triton.jit
def forward_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, start, final, ends, time, scale,
                    H, K, V, MODE: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, BC: tl.constexpr,
                    F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr, DOT: tl.constexpr):  # fmt: skip
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.arange(0, BK)
    vc = tl.program_id(0) * BV + tl.arange(0, BV)
    first, length = span(row, time, ends, MODE)
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
        if is_mild(f, fs, h, hs, first + t, length - t, kc, K, vc, V, BC, F, HV):
            S = _forward_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first + t, length - t,
                               kc, K, vc, V, scale, BC, F, HV, U, DOT)  # fmt: skip
        else:
            for p in range(t, tl.minimum(t + BC, length), PART):
                if is_mild(f, fs, h, hs, first + p, length - p, kc, K, vc, V, PART, F, HV):
                    S = _forward_block(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first + p, length - p,
                                       kc, K, vc, V, scale, PART, F, HV, U, DOT)  # fmt: skip
                else:
                    for i in range(p, tl.minimum(p + PART, length)):
                        S = forward_step(S, q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, first + i,
                                          kc, K, vc, V, scale, F, HV, U)  # fmt: skip
    tl.store(final + at, S, mask=inside)


@triton.jit
def step_kernel(q, qs, k, ks, v, vs, f, fs, h, hs, u, y, ys, start, final, scale, H, K, V,
                 BK: tl.constexpr, BV: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, U: tl.constexpr):  # fmt: skip
    """One frame of decoding: the state is read and written once."""
    row = tl.program_id(1) // H
    head = tl.program_id(1) % H
    kc = tl.arange(0, BK)
    vc = tl.program_id(0) * BV + tl.arange(0, BV)
    at = (tl.program_id(1).to(tl.int64) * K + kc)[:, None] * V + vc[None, :]
    inside = (kc < K)[:, None] & (vc < V)[None, :]
    S = tl.load(start + at, mask=inside, other=0.0).to(tl.float32)
    S = forward_step(S, q + head * K, qs, k + head * K, ks, v + head * V, vs, f + head * K, fs, h + head * V, hs,
                      u + head * K, y + head * V, ys, row.to(tl.int64), kc, K, vc, V, scale, F, HV, U)  # fmt: skip
    tl.store(final + at, S, mask=inside)
