"""Softmax attention: over everything so far (a growing cache), or over a sliding window (a ring of fixed size)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.lengths import check_lengths, valid_frames
from melstate.mixers.mixer import Mixer, zeros


class AttentionState(NamedTuple):
    """keys, values (B, H, slots, dim / H), keys already rotated; seen (B,) frames so far in each row."""

    keys: Tensor
    values: Tensor
    seen: Tensor


class _Attention(Mixer):
    """Projections and rotary positions; what is attended to is the subclass's matter."""

    def __init__(self, dim: int, heads: int, base: float) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"attention: dim {dim} must be a multiple of 2 × heads = {2 * heads} (rotary pairs)")
        self.dim, self.heads = dim, heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        half = dim // heads // 2
        self.frequency: Tensor
        self.register_buffer("frequency", base ** (-torch.arange(half) / half), persistent=False)

    def init_state(self, batch: int) -> AttentionState:
        return self._empty(batch, 0)

    def _empty(self, batch: int, slots: int) -> AttentionState:
        empty = zeros(self, batch, self.heads, slots, self.dim // self.heads)
        return AttentionState(empty, empty, zeros(self, batch, dtype=torch.long))

    def _read(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v (B, H, T, dim / H), rotated, and the frames' positions (B, T)."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.project(x).chunk(3, dim=-1))
        position = count[:, None] + torch.arange(x.shape[1], device=x.device)
        angle = position[:, None, :, None] * self.frequency
        turn = torch.cos(angle).to(q.dtype), torch.sin(angle).to(q.dtype)
        return _rotate(q, *turn), _rotate(k, *turn), v, position

    def _write(self, y: Tensor) -> Tensor:
        return self.out(y.transpose(1, 2).flatten(2))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _put(cache: Tensor, new: Tensor, slot: Tensor) -> Tensor:
    """A copy of cache (B, H, S, D) with new (B, H, T, D) at slot (B, T); slot S drops the frame."""
    room = F.pad(cache, (0, 0, 0, 1))
    index = slot[:, None, :, None].expand_as(new)
    return room.scatter(2, index, new.to(cache.dtype))[:, :, :-1]


class Attention(_Attention):
    """Causal softmax attention over all frames so far, with rotary positions. Its state grows with every frame.

    Args:
        dim: width. heads: H.
        base: of the rotary frequencies.
    Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864.
    """

    constant_state = False

    def __init__(self, dim: int, *, heads: int = 4, base: float = 10000.0) -> None:
        super().__init__(dim, heads, base)

    def forward(
        self, x: Tensor, state: AttentionState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        batch, time, _ = x.shape
        fresh = state is None or state.keys.shape[2] == 0
        state = self.init_state(batch) if state is None else state
        q, k, v, position = self._read(x, state.seen)
        count = state.seen + time
        if lengths is not None:
            check_lengths(lengths, batch, time, operation="attention")
            count = state.seen + lengths
        if fresh:
            return self._write(F.scaled_dot_product_attention(q, k, v, is_causal=True)), AttentionState(k, v, count)
        # Rows may have come with different lengths: each goes on at its own count.
        slots = state.keys.shape[2] + time
        slot = position if lengths is None else torch.where(valid_frames(lengths, time), position, slots)
        keys, values = (
            _put(F.pad(old, (0, 0, 0, time)), new, slot)
            for old, new in ((state.keys, k), (state.values, v))
        )  # fmt: skip
        visible = torch.arange(slots, device=x.device) <= position[..., None]
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=visible[:, None])
        return self._write(y), AttentionState(keys, values, count)


class WindowAttention(_Attention):
    """Causal softmax attention over the last `window` frames, the present one included, with rotary positions.

    The state is a ring: frame p lives in slot p mod window. Long inputs are cut into blocks of `window` queries that
    look at their own and the previous block, so the cost is linear in time.

    Args:
        dim: width. heads: H.
        window: frames seen.
        base: of the rotary frequencies.
    Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1.
    """

    def __init__(self, dim: int, *, heads: int = 4, window: int = 64, base: float = 10000.0) -> None:
        super().__init__(dim, heads, base)
        if window < 1:
            raise ValueError(f"window attention: window must be >= 1 frame, got {window}")
        self.window = window

    def init_state(self, batch: int) -> AttentionState:
        return self._empty(batch, self.window)

    def forward(
        self, x: Tensor, state: AttentionState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        batch, time, _ = x.shape
        state = self.init_state(batch) if state is None else state
        q, k, v, position = self._read(x, state.seen)
        count = state.seen + time
        if lengths is not None:
            check_lengths(lengths, batch, time, operation="window attention")
            count = state.seen + lengths
        # Of the frames that share a slot only the last is written; padding is not.
        slot = torch.where(position >= count[:, None] - self.window, position % self.window, self.window)
        slot = torch.where(position < count[:, None], slot, self.window)
        after = AttentionState(_put(state.keys, k, slot), _put(state.values, v, slot), count)
        if time == 1 and lengths is None:
            # Softmax does not mind the ring's order. Slots beyond the count are still empty.
            filled = torch.arange(self.window, device=x.device) < count[:, None]
            y = F.scaled_dot_product_attention(q, after.keys, after.values, attn_mask=filled[:, None, None])
            return self._write(y), after
        return self._write(self._blocks(q, k, v, state) if time else v), after

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor, state: AttentionState) -> Tensor:
        batch, heads, time, width = q.shape
        window = self.window
        count = -(-time // window)
        spare = count * window - time
        # The ring in order of time: the frame `window` back first.
        order = (state.seen[:, None] + torch.arange(window, device=q.device)) % window
        order = order[:, None, :, None].expand(-1, heads, -1, width)

        def around(old: Tensor, new: Tensor) -> Tensor:
            """(B, count, H, 2 window, width): each block of queries' own keys and those of the block before."""
            row = torch.cat([old.gather(2, order).to(new.dtype), F.pad(new, (0, 0, 0, spare))], dim=2)
            return row.unfold(2, 2 * window, window).permute(0, 2, 1, 4, 3)

        queries = F.pad(q, (0, 0, 0, spare)).view(batch, heads, count, window, width).transpose(1, 2)
        i, j = torch.arange(window, device=q.device)[:, None], torch.arange(2 * window, device=q.device)
        band = (j > i) & (j <= i + window)
        # Relative to this call, key j of block n is frame n·window + j - window; before the start there is none.
        frame = torch.arange(count, device=q.device)[:, None] * window + j - window
        real = frame + state.seen[:, None, None] >= 0
        mask = band & real[:, :, None, None]
        y = F.scaled_dot_product_attention(queries, around(state.keys, k), around(state.values, v), attn_mask=mask)
        return y.transpose(1, 2).reshape(batch, heads, count * window, width)[:, :, :time]
