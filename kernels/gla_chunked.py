"""Gated linear attention in chunks of plain PyTorch: a few cache-sized batched matmuls per chunk, forward and backward.

With G the running sum of log decays inside a chunk and S the state before it,

    y = (q e^G) S + tril(q e^G (k e^-G)^T) v,      S' = e^{G_n} (S + (k e^-G)^T v).

e^-G overflows under strong decay. Each chunk therefore looks at its own decay and picks a leaf: blocks of `leaf` frames
whose total decay is mild use the formula above; larger distances go through the halving tree, where for every block
of 2w frames the reference is its middle: later half q e^{prefix}, earlier half k e^{suffix}, every exponent <= 0.
Chunks of mild decay (all of them, for most trained speech models) are one leaf. Both directions decide alike.

The backward pass holds no difference of large numbers: decay gradients come from each tree level's own pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melstate.kernels.gla_blocks import Chunk, mild, mild_backward, tree, tree_backward

# The largest total decay of a leaf, in nats: e^24 = 2.6e10 keeps products far from the edges of float32.
LEAF_DECAY = 24.0
# The largest mean decay per step in a leaf: under stronger ones its decay gradient would be a small difference.
STEP_DECAY = 3.0
# exp(-50) is nothing beside 1 even in float64; -inf would turn sums into NaN.
FLOOR = -50.0


def chunk_size(rows: int, width: int) -> int:
    """Frames per chunk for `rows` = batch × heads and `width` = max(K, V).

    32 keeps a training batch's working set in the L2 cache; few rows take longer chunks so that arithmetic, not
    the cost of launching operations, dominates.
    """
    return 32 if rows * width >= 2048 else 64


def gla_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    bonus: Tensor | None,
    state: Tensor,
    scale: float,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`melstate.kernels.gla.gla` for checked, padded operands; see there for shapes."""
    return _Gla.apply(q, k, v, log_decay, value_log_decay, bonus, state, scale, lengths)


class _Gla(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, f, h, u, state, scale, lengths):
        with torch.autocast(q.device.type, enabled=False):
            batch, time, heads, _ = q.shape
            size = chunk_size(batch * heads, max(q.shape[3], v.shape[3]))
            loader = _Loader(batch, heads, size, state.dtype, lengths)
            y = torch.empty_like(v, memory_format=torch.contiguous_format)
            current = state.reshape(batch * heads, *state.shape[2:])
            states, leaves = [current], []
            row_bonus = None if u is None else u.to(state.dtype).repeat(batch, 1)[:, None]
            for start in range(0, time, size):
                chunk = loader.load(start, time, q, k, v, f, h)
                leaf = _leaf(chunk, time - start)
                out, current = _forward(chunk, current, leaf, row_bonus)
                y[:, start : start + size] = loader.unload(out, scale)[:, : time - start]
                states.append(current)
                leaves.append(leaf)
            ctx.save_for_backward(q, k, v, f, h, u, lengths, *states)
            ctx.scale, ctx.size, ctx.leaves = scale, size, leaves
            # A clone: `states` must not alias what the caller may modify.
            return y, current.reshape(state.shape).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, dstate):
        q, k, v, f, h, u, lengths, *states = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            batch, time, heads, _ = q.shape
            dtype = states[0].dtype
            loader = _Loader(batch, heads, ctx.size, dtype, lengths)
            row_bonus = None if u is None else u.to(dtype).repeat(batch, 1)[:, None]
            grads = [None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)
                     for x in (q, k, v, f, h)]  # fmt: skip
            current = dstate.reshape(states[0].shape).to(dtype)
            du = None if u is None else states[0].new_zeros(batch * heads, q.shape[3])
            starts = range(0, time, ctx.size)
            for index in reversed(range(len(starts))):
                start = starts[index]
                chunk = loader.load(start, time, q, k, v, f, h)
                dout = loader.rows(dy, start, time, ctx.scale)
                found, current, bonus_grad = _backward(
                    chunk, states[index], states[index + 1], dout, current, ctx.leaves[index], row_bonus
                )
                if du is not None:
                    du += bonus_grad
                for grad, part in zip(grads, found, strict=True):
                    if grad is not None and part is not None:
                        grad[:, start : start + ctx.size] = loader.unload(loader.mask(part, start))[:, : time - start]
            if du is not None:
                du = du.reshape(batch, heads, -1).sum(0).to(u.dtype)
            return *grads, du, current.reshape(batch, heads, *current.shape[1:]), None, None


class _Loader:
    """Moves chunks between (B, T, H, D) and the compute layout (B·H, C, D)."""

    def __init__(self, batch: int, heads: int, size: int, dtype: torch.dtype, lengths: Tensor | None) -> None:
        self.batch, self.heads, self.size, self.dtype, self.lengths = batch, heads, size, dtype, lengths
        self.shortest = 0 if lengths is None or not batch else int(lengths.min())

    def load(self, start: int, time: int, q, k, v, f, h) -> Chunk:
        decays = (None if x is None else self.rows(x, start, time).clamp_(FLOOR, 0.0) for x in (f, h))
        return Chunk(self.rows(q, start, time), self.rows(k, start, time), self.rows(v, start, time), *decays)

    def rows(self, x: Tensor, start: int, time: int, scale: float = 1.0) -> Tensor:
        """Frames start … start + size of (B, T, H, D) as (B·H, size, D) in the compute dtype."""
        length = min(self.size, time - start)
        # A short last chunk is filled up with zeros: no input, no decay.
        make = torch.empty if length == self.size else torch.zeros
        out = make(self.batch, self.heads, self.size, x.shape[3], dtype=self.dtype, device=x.device)
        out[:, :, :length] = x[:, start : start + length].permute(0, 2, 1, 3)
        out = self.mask(out.view(self.batch * self.heads, self.size, x.shape[3]), start)
        return out if scale == 1.0 else out.mul_(scale)

    def mask(self, x: Tensor, start: int) -> Tensor:
        """Zeroes frames beyond `lengths` in place; replaces, so that NaN in the padding cannot spread."""
        if self.lengths is not None and self.shortest < start + self.size:
            frames = torch.arange(start, start + self.size, device=x.device)
            padding = (frames >= self.lengths[:, None])[:, None, :, None]
            x.view(self.batch, self.heads, self.size, -1).masked_fill_(padding, 0.0)
        return x

    def unload(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if scale != 1.0:
            x = x.mul_(scale)
        return x.view(self.batch, self.heads, self.size, -1).transpose(1, 2)


def _leaf(chunk: Chunk, frames: int) -> int:
    """The largest block whose decay the plain formula takes safely: the chunk, a power-of-two part of it, or 1.

    Only `frames` of the chunk are real: the rest must not dilute the mean.
    """
    size = chunk.q.shape[1]
    decays = [x for x in (chunk.f, chunk.h) if x is not None]
    if not decays or not chunk.q.numel() or not chunk.v.numel():
        return size
    leaf = size
    # The strongest single step bounds every sum: one cheap pass settles the usual case.
    strongest = max(-float(x.min()) for x in decays)
    if strongest * size <= min(LEAF_DECAY, STEP_DECAY * min(size, frames)):
        return size
    while leaf >= 8:
        worst = max(-float(x.view(-1, leaf, x.shape[2]).sum(1).min()) for x in decays)
        if worst <= min(LEAF_DECAY, STEP_DECAY * min(leaf, frames)):
            return leaf
        leaf //= 2
    return 1


def _forward(chunk: Chunk, state: Tensor, leaf: int, bonus: Tensor | None) -> tuple[Tensor, Tensor]:
    q, k, v, f, h = chunk
    strict = bonus is not None
    if leaf == q.shape[1]:
        y, after = mild(chunk, state, strict)
    else:
        y, after = tree(chunk, state, leaf, strict)
    diagonal = _diagonal(bonus, leaf)
    if diagonal is not None:
        y += (q * diagonal * k).sum(-1, keepdim=True) * v
    return y, after


def _backward(chunk: Chunk, state: Tensor, after: Tensor, dy: Tensor, dafter: Tensor, leaf: int, bonus: Tensor | None):
    """Gradients of q, k, v, f, h, then of the state before the chunk, then of the bonus per row (rows, K)."""
    q, k, v, f, h = chunk
    strict = bonus is not None
    if leaf == q.shape[1]:
        grads, dstate = mild_backward(chunk, state, after, dy, dafter, strict)
    else:
        grads, dstate = tree_backward(chunk, state, dy, dafter, leaf, strict)
    diagonal = _diagonal(bonus, leaf)
    dbonus = None
    if diagonal is not None:
        dscore = (dy * v).sum(-1, keepdim=True)
        grads.q.add_(dscore * diagonal * k)
        grads.k.add_(dscore * diagonal * q)
        grads.v.add_((q * diagonal * k).sum(-1, keepdim=True) * dy)
        if bonus is not None:
            dbonus = (dscore * q * k).sum(1)
    return grads, dstate, dbonus


def _diagonal(bonus: Tensor | None, leaf: int) -> Tensor | float | None:
    """What multiplies q_t k_t in y_t beside the blocks: the bonus, or 1 where leaves of one frame leave it to us."""
    return bonus if bonus is not None else 1.0 if leaf == 1 else None
