"""One chunk of gated linear attention: whether its decay is mild, and the plain formula's operands if so."""

from __future__ import annotations

import triton
import triton.language as tl

from melstate.kernels.tiles_triton import exp, tile, vector

LIMIT = tl.constexpr(-24.0)  # see LEAF_DECAY of gla_chunked
FLOOR = tl.constexpr(-50.0)


@triton.jit
def decay_tile(ptr, stride, first, left, cols, width, ROWS: tl.constexpr, HAS: tl.constexpr):
    if HAS:
        return tl.maximum(tile(ptr, stride, first, left, cols, width, ROWS), FLOOR)
    else:
        return tl.zeros([ROWS, cols.shape[0]], tl.float32)


@triton.jit
def decay_vector(ptr, stride, token, cols, width, HAS: tl.constexpr):
    if HAS:
        return exp(tl.maximum(vector(ptr, stride, token, cols, width), FLOOR))
    else:
        return tl.full([cols.shape[0]], 1.0, tl.float32)


@triton.jit
def is_mild(f, fs, h, hs, first, left, kc, K, vc, V, ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr):
    """Whether `ROWS` frames from `first` decay little enough for the plain formula."""
    worst = 0.0
    if F:
        worst = tl.minimum(worst, tl.min(tl.sum(decay_tile(f, fs, first, left, kc, K, ROWS, True), 0), 0))
    if HV:
        worst = tl.minimum(worst, tl.min(tl.sum(decay_tile(h, hs, first, left, vc, V, ROWS, True), 0), 0))
    return worst >= LIMIT


@triton.jit
def scaled(q, qs, k, ks, v, vs, f, fs, h, hs, first, left, kc, K, vc, V, scale,
            ROWS: tl.constexpr, F: tl.constexpr, HV: tl.constexpr, STRICT: tl.constexpr):  # fmt: skip
    """The plain formula's operands: q e^G scale, k e^-G, v e^-Gv, the scales of each, and the chunk's decays."""
    ft = decay_tile(f, fs, first, left, kc, K, ROWS, F)
    ht = decay_tile(h, hs, first, left, vc, V, ROWS, HV)
    g = tl.cumsum(ft, 0)
    gv = tl.cumsum(ht, 0)
    q_scale = (exp(g - ft) if STRICT else exp(g)) * scale
    k_scale = exp(-g)
    y_scale = exp(gv)
    v_scale = exp(-gv)
    qe = tile(q, qs, first, left, kc, K, ROWS) * q_scale
    ke = tile(k, ks, first, left, kc, K, ROWS) * k_scale
    ve = tile(v, vs, first, left, vc, V, ROWS) * v_scale
    total = exp(tl.sum(ft, 0))[:, None] * exp(tl.sum(ht, 0))[None, :]
    return qe, ke, ve, q_scale, k_scale, y_scale, v_scale, total


@triton.jit
def dot(a, b, DOT: tl.constexpr):
    return tl.dot(a.to(DOT), b.to(DOT), input_precision="ieee")


@triton.jit
def lower(ROWS: tl.constexpr, STRICT: tl.constexpr):
    """mask[t, s]: whether frame t reads frame s of its chunk."""
    t = tl.arange(0, ROWS)
    return t[:, None] > t[None, :] if STRICT else t[:, None] >= t[None, :]


@triton.jit
def upper(ROWS: tl.constexpr, STRICT: tl.constexpr):
    """mask[s, t]: the transpose of `_lower`, built anew: a transposed product must not feed a product."""
    t = tl.arange(0, ROWS)
    return t[:, None] < t[None, :] if STRICT else t[:, None] <= t[None, :]
