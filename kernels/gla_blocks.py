"""What happens inside one chunk of gated linear attention: the plain formula for mild decay, the halving tree for any.

Shapes: q, k (R, C, K), v (R, C, V), log decays f (R, C, K) and h (R, C, V), states (R, K, V), R = batch × heads.
`strict` reads the state before the step (the bonus form): decays reach to t - 1 and scores stop below the diagonal.
Gradients of log decays add up over the sums they enter: x at frame t of an inclusive sum goes to all frames up to t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """Operands of one chunk, or their gradients: contiguous, decays clamped, padding zeroed."""

    q: Tensor
    k: Tensor
    v: Tensor
    f: Tensor | None
    h: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> Chunk:
        """`change` applied to every operand that is there."""
        f, h = (None if x is None else change(x) for x in (self.f, self.h))
        return Chunk(change(self.q), change(self.k), change(self.v), f, h)


def _after(x: Tensor) -> Tensor:
    """Inclusive sum over later frames of axis -2: out_s = x_s + … + x_n."""
    return x.flip(-2).cumsum(-2).flip(-2)


def _later(x: Tensor) -> Tensor:
    """Exclusive sum over later frames: out_s = x_{s+1} + … + x_n. Shifted, not subtracted, which stays exact."""
    out = torch.zeros_like(x)
    out[..., :-1, :] = _after(x[..., 1:, :])
    return out


def _earlier(x: Tensor) -> Tensor:
    """Exclusive sum over earlier frames."""
    out = torch.zeros_like(x)
    torch.cumsum(x[..., :-1, :], -2, out=out[..., 1:, :])
    return out


def _reach(f: Tensor, strict: bool) -> Tensor:
    return _earlier(f) if strict else f.cumsum(-2)


def _reach_back(x: Tensor, strict: bool) -> Tensor:
    """The transpose of `_reach`."""
    return _later(x) if strict else _after(x)


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


class _Mild(NamedTuple):
    """The plain formula's operands q e^G, k e^-G, v e^-Gv, and those scales to apply to results and gradients."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_scale: Tensor | None
    k_scale: Tensor | None
    y_scale: Tensor | None
    v_scale: Tensor | None

    @classmethod
    def of(cls, chunk: Chunk, strict: bool) -> _Mild:
        q, k, v, f, h = chunk
        q_scale = k_scale = y_scale = v_scale = None
        if f is not None:
            total = f.cumsum(1).exp_()
            k_scale = total.reciprocal()
            q_scale = _earlier(f).exp_() if strict else total
        if h is not None:
            y_scale = h.cumsum(1).exp_()
            v_scale = y_scale.reciprocal()
        return cls(_times(q, q_scale), _times(k, k_scale), _times(v, v_scale), q_scale, k_scale, y_scale, v_scale)

    def decay_(self, state: Tensor) -> Tensor:
        """Multiplies (R, K, V) in place by the whole chunk's decay."""
        if self.k_scale is not None:
            state /= self.k_scale[:, -1, :, None]
        if self.y_scale is not None:
            state *= self.y_scale[:, -1, None]
        return state


def mild(chunk: Chunk, state: Tensor | None, strict: bool) -> tuple[Tensor, Any]:
    """y and the state after the chunk, by the plain formula; state None leaves the state out."""
    m = _Mild.of(chunk, strict)
    scores = torch.bmm(m.q, m.k.transpose(1, 2)).tril_(-1 if strict else 0)
    y = torch.bmm(scores, m.v)
    after = None
    if state is not None:
        y.baddbmm_(m.q, state)
        after = m.decay_(torch.baddbmm(state, m.k.transpose(1, 2), m.v))
    if m.y_scale is not None:
        y *= m.y_scale
    return y, after


def mild_backward(
    chunk: Chunk, state: Tensor | None, after: Tensor | None, dy: Tensor, dafter: Tensor | None, strict: bool
) -> tuple[Chunk, Any]:
    """Gradients of the operands and of the state before, from those of y and of the state `after`."""
    m = _Mild.of(chunk, strict)
    dout = _times(dy, m.y_scale)
    scores = torch.bmm(m.q, m.k.transpose(1, 2)).tril_(-1 if strict else 0)
    dscores = torch.bmm(dout, m.v.transpose(1, 2)).tril_(-1 if strict else 0)
    dq = torch.bmm(dscores, m.k)
    dk = torch.bmm(dscores.transpose(1, 2), m.q)
    dv = torch.bmm(scores.transpose(1, 2), dout)
    dstate = None
    if state is not None and dafter is not None:
        dsum = m.decay_(dafter.clone())
        dq.baddbmm_(dout, state.transpose(1, 2))
        dk.baddbmm_(m.v, dsum.transpose(1, 2))
        dv.baddbmm_(m.k, dsum)
        dstate = torch.baddbmm(dsum, m.q.transpose(1, 2), dout)
    df = dh = None
    if chunk.f is not None:
        gain = m.q * dq
        if strict:
            gain = torch.cat([gain[:, 1:], torch.zeros_like(gain[:, :1])], dim=1)
        gain.addcmul_(m.k, dk, value=-1)
        if after is not None and dafter is not None:
            gain[:, -1] += (after * dafter).sum(2)
        df = _after(gain)
    if chunk.h is not None:
        out = torch.bmm(scores, m.v)
        if state is not None:
            out.baddbmm_(m.q, state)
        gain = out.mul_(dout).addcmul_(m.v, dv, value=-1)
        if after is not None and dafter is not None:
            gain[:, -1] += (after * dafter).sum(1)
        dh = _after(gain)
    return Chunk(_times(dq, m.q_scale), _times(dk, m.k_scale), _times(dv, m.v_scale), df, dh), dstate


class _Far(NamedTuple):
    """Queries after a reference frame and keys up to it: every exponent is <= 0."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_scale: Tensor | None
    k_scale: Tensor | None
    y_scale: Tensor | None
    v_scale: Tensor | None

    @classmethod
    def of(cls, late: Chunk, early: Chunk, strict: bool) -> _Far:
        q_scale = k_scale = y_scale = v_scale = None
        if late.f is not None and early.f is not None:
            q_scale, k_scale = _reach(late.f, strict).exp_(), _later(early.f).exp_()
        if late.h is not None and early.h is not None:
            y_scale, v_scale = late.h.cumsum(-2).exp_(), _later(early.h).exp_()
        scaled = _times(late.q, q_scale), _times(early.k, k_scale), _times(early.v, v_scale)
        return cls(*scaled, q_scale, k_scale, y_scale, v_scale)


def _halves(chunk: Chunk, width: int) -> tuple[Chunk, Chunk]:
    """The later and the earlier half of every block of 2 × width frames, as rows of `width` frames (copies)."""

    late, early = _views(chunk, width)
    return late.map(Tensor.contiguous), early.map(Tensor.contiguous)


def _views(chunk: Chunk, width: int) -> tuple[Chunk, Chunk]:
    return (
        chunk.map(lambda x: x.view(-1, 2, width, x.shape[2])[:, 1]),
        chunk.map(lambda x: x.view(-1, 2, width, x.shape[2])[:, 0]),
    )


def _blocks(chunk: Chunk, leaf: int) -> Chunk:
    return chunk.map(lambda x: x.view(-1, leaf, x.shape[2]))


def _widths(leaf: int, size: int) -> list[int]:
    return [leaf << i for i in range((size // leaf).bit_length() - 1)]


def tree(chunk: Chunk, state: Tensor, leaf: int, strict: bool) -> tuple[Tensor, Tensor]:
    """y and the state after the chunk under any decay; leaves of one frame leave the diagonal to the caller."""
    across = _Far.of(chunk, chunk, strict)
    y = _times(torch.bmm(across.q, state), across.y_scale)
    after = torch.baddbmm(_decayed(chunk, state), across.k.transpose(1, 2), across.v)
    for width in _widths(leaf, chunk.q.shape[1]):
        far = _Far.of(*_halves(chunk, width), strict)
        part = torch.bmm(torch.bmm(far.q, far.k.transpose(1, 2)), far.v)
        y.view(-1, 2, width, y.shape[2])[:, 1] += _times(part, far.y_scale)
    if leaf > 1:
        y += mild(_blocks(chunk, leaf), None, strict)[0].view(y.shape)
    return y, after


def tree_backward(
    chunk: Chunk, state: Tensor, dy: Tensor, dafter: Tensor, leaf: int, strict: bool
) -> tuple[Chunk, Tensor]:
    """Gradients of `tree`'s operands and of the state before."""
    grads = chunk.map(torch.zeros_like)
    across = _Far.of(chunk, chunk, strict)
    dout = _times(dy, across.y_scale)
    dstate = _decayed(chunk, dafter).baddbmm_(across.q.transpose(1, 2), dout)
    _collect(
        grads, grads, across, strict,
        dq=torch.bmm(dout, state.transpose(1, 2)),
        dk=torch.bmm(across.v, dafter.transpose(1, 2)),
        dv=torch.bmm(across.k, dafter),
        gain=None if chunk.h is None else torch.bmm(across.q, state).mul_(dout),
    )  # fmt: skip
    kept = _decayed(chunk, state).mul_(dafter)
    if grads.f is not None:
        grads.f.add_(kept.sum(2)[:, None])
    if grads.h is not None:
        grads.h.add_(kept.sum(1)[:, None])
    for width in _widths(leaf, chunk.q.shape[1]):
        far = _Far.of(*_halves(chunk, width), strict)
        dout = _times(dy.view(-1, 2, width, dy.shape[2])[:, 1], far.y_scale).contiguous()
        scores = torch.bmm(far.q, far.k.transpose(1, 2))
        dscores = torch.bmm(dout, far.v.transpose(1, 2))
        late, early = _views(grads, width)
        _collect(
            late, early, far, strict,
            dq=torch.bmm(dscores, far.k),
            dk=torch.bmm(dscores.transpose(1, 2), far.q),
            dv=torch.bmm(scores.transpose(1, 2), dout),
            gain=None if chunk.h is None else torch.bmm(scores, far.v).mul_(dout),
        )  # fmt: skip
    if leaf > 1:
        part, _ = mild_backward(_blocks(chunk, leaf), None, None, dy.view(-1, leaf, dy.shape[2]), None, strict)
        for grad, more in zip(grads, part, strict=True):
            if grad is not None and more is not None:
                grad += more.view(grad.shape)
    return grads, dstate


def _decayed(chunk: Chunk, state: Tensor) -> Tensor:
    """A copy of the state after the whole chunk's decay."""
    out = state.clone() if chunk.f is None else state * chunk.f.sum(1).exp_()[:, :, None]
    if chunk.h is not None:
        out *= chunk.h.sum(1).exp_()[:, None]
    return out


def _collect(late: Chunk, early: Chunk, far: _Far, strict: bool, *, dq, dk, dv, gain) -> None:
    """Adds the gradients of scaled operands to those of the operands and of the decays in their scales."""
    if late.f is not None and early.f is not None:
        late.f.add_(_reach_back(far.q * dq, strict))
        early.f.add_(_earlier(far.k * dk))
    if late.h is not None and early.h is not None:
        late.h.add_(_after(gain))
        early.h.add_(_earlier(far.v * dv))
    late.q.add_(_times(dq, far.q_scale))
    early.k.add_(_times(dk, far.k_scale))
    early.v.add_(_times(dv, far.v_scale))
