"""Residual blocks around mixers, stacks of them, and directions other than forward in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.lengths import check_lengths, valid_frames
from melstate.mixers.mixer import Mixer, create, zeros
from melstate.mixers.norm import HeadNorm
from melstate.mixers.short_conv import ShortConv


class BlockState(NamedTuple):
    """mixer: the mixer's own state; conv: the feed-forward's (B, width - 1, hidden), zero-wide without convolution."""

    mixer: Any
    conv: Tensor


class GLU(nn.Module):
    """W_down[silu(W_gate x) ⊙ conv(W_up x)]: the feed-forward of a block.

    Args:
        dim: width.
        hidden: inner width; 8/3 dim rounded up to a multiple of 16 if None (as many weights as a plain 4 × dim one).
        conv: frames of a causal depthwise convolution on the inner values; 0 leaves it out.
    Source: Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, dim: int, hidden: int | None = None, *, conv: int = 0) -> None:
        super().__init__()
        hidden = hidden or -(-dim * 8 // 48) * 16
        self.up = nn.Linear(dim, 2 * hidden)
        self.conv = ShortConv(hidden, conv, silu=False) if conv else None
        self.down = nn.Linear(hidden, dim)

    def init_state(self, batch: int) -> Tensor:
        return self.conv.init_state(batch) if self.conv is not None else self.up.weight.new_zeros(batch, 0, 0)

    def forward(self, x: Tensor, state: Tensor, *, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gate, value = self.up(x).chunk(2, dim=-1)
        if self.conv is not None:
            value, state = self.conv(value, state, lengths=lengths)
        return self.down(F.silu(gate) * value), state


class Block(Mixer):
    """x + α mixer(norm x), then x + β glu(norm x).

    Args:
        mixer: what mixes along time.
        hidden: the GLU's inner width; None for the default, 0 for no feed-forward.
        conv: frames of the convolution inside the GLU; 0 for none.
        residual: "pre" normalises the branch's input and adds it whole; "rezero" adds α times the branch of the bare
            input, α = 0 at the start, so that any depth begins as the identity (Bachlechner et al. 2020,
            arXiv:2003.04887).
        dropout: on each branch's output while training.
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        hidden: int | None = None,
        conv: int = 0,
        residual: str = "pre",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if residual not in ("pre", "rezero"):
            raise ValueError(f"block: residual must be 'pre' or 'rezero', got {residual!r}")
        self.dim, self.mixer, self.dropout = mixer.dim, mixer, dropout
        self.glu = GLU(self.dim, hidden, conv=conv) if hidden != 0 else None
        branches = 1 if self.glu is None else 2
        pre = residual == "pre"
        self.norms = nn.ModuleList(HeadNorm(self.dim) if pre else nn.Identity() for _ in range(branches))
        self.scales = None if pre else nn.Parameter(torch.zeros(branches))

    def init_state(self, batch: int) -> BlockState:
        conv = self.glu.init_state(batch) if self.glu is not None else zeros(self, batch, 0, 0)
        return BlockState(self.mixer.init_state(batch), conv)

    def forward(
        self, x: Tensor, state: BlockState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, BlockState]:
        state = self.init_state(x.shape[0]) if state is None else state
        y, mixed = self.mixer(self.norms[0](x), state.mixer, lengths=lengths)
        x = x + self._branch(y, 0)
        conv = state.conv
        if self.glu is not None:
            y, conv = self.glu(self.norms[1](x), conv, lengths=lengths)
            x = x + self._branch(y, 1)
        return x, BlockState(mixed, conv)

    def _branch(self, y: Tensor, index: int) -> Tensor:
        y = F.dropout(y, self.dropout, self.training) if self.dropout else y
        return y if self.scales is None else y * self.scales[index]


class StackState(NamedTuple):
    """layers: one state per layer; pending: (B, p, dim) frames that wait for their chunk, p < chunk."""

    layers: tuple[Any, ...]
    pending: Tensor


class Stack(Mixer):
    """Layers one after the other, and a norm at the end if asked for.

    With `chunk`, layers that look back from a chunk's end (ChunkBackward) may be among them. Then a stream emits whole
    chunks only: `forward(x, state, final=False)` returns (B, t, dim) with t any multiple of `chunk` down to 0 and keeps
    the rest of x in the state; `final=True`, the default, also emits what is left. Over all calls as many frames come
    out as went in, and they equal those of one call.

    Args:
        layers: Mixers of one width.
        chunk: frames per chunk; None if all layers are causal or the stack is never streamed.
        norm: root-mean-square norm on the output.
    """

    def __init__(self, layers: Sequence[Mixer], *, chunk: int | None = None, norm: bool = False) -> None:
        super().__init__()
        if not layers or len({layer.dim for layer in layers}) != 1:
            raise ValueError(f"stack: layers must have one width, got {[layer.dim for layer in layers]}")
        wanted = {m.chunk for layer in layers for m in layer.modules() if isinstance(m, ChunkBackward)}
        if wanted - {chunk}:
            raise ValueError(f"stack: chunk={chunk} but its layers look back over chunks of {sorted(wanted)}")
        self.dim, self.chunk = layers[0].dim, chunk
        self.layers = nn.ModuleList(layers)
        self.norm = HeadNorm(self.dim) if norm else None

    def init_state(self, batch: int) -> StackState:
        return StackState(tuple(layer.init_state(batch) for layer in self._mixers()), zeros(self, batch, 0, self.dim))

    def _mixers(self) -> list[Mixer]:
        return [layer for layer in self.layers if isinstance(layer, Mixer)]

    def forward(
        self, x: Tensor, state: StackState | None = None, *, lengths: Tensor | None = None, final: bool = True
    ) -> tuple[Tensor, StackState]:
        """See the class; `lengths` only together with final=True when frames are pending or withheld."""
        state = self.init_state(x.shape[0]) if state is None else state
        pending = state.pending
        if self.chunk is not None:
            if lengths is not None and not final:
                raise ValueError("stack: rows of different lengths cannot be streamed in chunks; pass final=True")
            if lengths is not None:
                lengths = lengths + pending.shape[1]
            x = torch.cat([pending, x], dim=1) if pending.shape[1] else x
            whole = x.shape[1] if final else x.shape[1] // self.chunk * self.chunk
            x, pending = x[:, :whole], x[:, whole:]
        states = []
        if x.shape[1]:
            for layer, before in zip(self.layers, state.layers, strict=True):
                x, after = layer(x, before, lengths=lengths)
                states.append(after)
        else:
            states = list(state.layers)
        return x if self.norm is None else self.norm(x), StackState(tuple(states), pending)


def reverse(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """(B, T, D) backward in time; with lengths only the real frames of each row, padding stays where it is."""
    if lengths is None:
        return x.flip(1)
    frames = torch.arange(x.shape[1], device=x.device)
    index = torch.where(valid_frames(lengths, x.shape[1]), lengths[:, None] - 1 - frames, frames)
    return x.gather(1, index[..., None].expand_as(x))


class Bidirectional(Mixer):
    """forward(x) + backward(x), the second running from each row's last real frame to its first.

    Sees the whole sequence at once: it takes no state and returns an empty one.
    """

    causal = False

    def __init__(self, forward: Mixer, backward: Mixer) -> None:
        super().__init__()
        if forward.dim != backward.dim:
            raise ValueError(f"bidirectional: directions must have one width, got {forward.dim} and {backward.dim}")
        self.dim, self.ahead, self.behind = forward.dim, forward, backward

    def init_state(self, batch: int) -> tuple[()]:
        return ()

    def forward(
        self, x: Tensor, state: tuple[()] | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]]:
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1], operation="bidirectional")
        ahead, _ = self.ahead(x, lengths=lengths)
        behind, _ = self.behind(reverse(x, lengths), lengths=lengths)
        return ahead + reverse(behind, lengths), ()


class ChunkBackward(Mixer):
    """A mixer run backward in time inside each chunk of `chunk` frames, starting anew at every chunk's end.

    Its outputs look ahead to the end of their chunk and no further, so a stream can emit whole chunks: give it calls
    that start at a chunk's start, as Stack(chunk=…) does. The state is the number of frames of a last partial chunk:
    after one the sequence has ended, and another call raises ValueError.

    Args:
        mixer: the mixer to run backward.
        chunk: frames per chunk.
    """

    causal = False

    def __init__(self, mixer: Mixer, chunk: int) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"chunk backward: chunk must be >= 1 frame, got {chunk}")
        self.dim, self.mixer, self.chunk = mixer.dim, mixer, chunk

    def init_state(self, batch: int) -> ChunkBackwardState:
        return ChunkBackwardState(torch.zeros((), dtype=torch.long))

    def forward(
        self, x: Tensor, state: ChunkBackwardState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, ChunkBackwardState]:
        if state is not None and int(state.partial):
            raise ValueError(
                f"chunk backward: the call before ended {int(state.partial)} frames into a chunk of {self.chunk}; "
                "give whole chunks (Stack(chunk=...) does) until the end"
            )
        batch, time, dim = x.shape
        count = -(-time // self.chunk)
        short = count * self.chunk - time
        if lengths is not None:
            check_lengths(lengths, batch, time, operation="chunk backward")
        elif short:
            lengths = torch.full((batch,), time, device=x.device)
        if lengths is not None:
            starts = torch.arange(count, device=x.device) * self.chunk
            lengths = (lengths[:, None] - starts).clamp(0, self.chunk).flatten()
        chunks = F.pad(x, (0, 0, 0, short)).reshape(batch * count, self.chunk, dim)
        y, _ = self.mixer(reverse(chunks, lengths), lengths=lengths)
        y = reverse(y, lengths).reshape(batch, count * self.chunk, dim)[:, :time]
        return y, ChunkBackwardState(torch.tensor(time % self.chunk))


class ChunkBackwardState(NamedTuple):
    """partial: frames of the last, unfinished chunk; 0 while the sequence can go on."""

    partial: Tensor


class SumState(NamedTuple):
    """One state per mixer of a Sum."""

    parts: tuple[Any, ...]


class Sum(Mixer):
    """Mixers beside each other, summed: Sum([forward, ChunkBackward(backward, 32)]) looks both ways."""

    def __init__(self, mixers: Sequence[Mixer]) -> None:
        super().__init__()
        if not mixers or len({mixer.dim for mixer in mixers}) != 1:
            raise ValueError(f"sum: mixers must have one width, got {[mixer.dim for mixer in mixers]}")
        self.dim = mixers[0].dim
        self.mixers = nn.ModuleList(mixers)

    def init_state(self, batch: int) -> SumState:
        return SumState(tuple(mixer.init_state(batch) for mixer in self.mixers if isinstance(mixer, Mixer)))

    def forward(
        self, x: Tensor, state: SumState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, SumState]:
        before = (None,) * len(self.mixers) if state is None else state.parts
        results = [mixer(x, part, lengths=lengths) for mixer, part in zip(self.mixers, before, strict=True)]
        return torch.stack([y for y, _ in results]).sum(0), SumState(tuple(after for _, after in results))


def build(
    dim: int,
    layers: int,
    mixer: str = "gla",
    *,
    direction: str = "forward",
    chunk: int | None = None,
    hidden: int | None = None,
    conv: int = 0,
    residual: str = "pre",
    dropout: float = 0.0,
    norm: bool = True,
    **options: Any,
) -> Stack:
    """A stack of equal blocks from plain values, for configs.

    Args:
        dim, layers: width and depth.
        mixer, options: for `melstate.mixers.mixer.create`.
        direction: "forward"; "both" (two directions over the whole row); "chunk" (forward, plus backward inside chunks
            of `chunk` frames).
        hidden, conv, residual, dropout: for Block. norm: for Stack.
    """
    if direction not in ("forward", "both", "chunk"):
        raise ValueError(f"direction must be 'forward', 'both' or 'chunk', got {direction!r}")
    if (direction == "chunk") != (chunk is not None):
        raise ValueError(f"direction={direction!r} with chunk={chunk}: chunk belongs to direction='chunk' alone")

    def mix() -> Mixer:
        ahead = create(mixer, dim, **options)
        if direction == "both":
            return Bidirectional(ahead, create(mixer, dim, **options))
        if chunk is not None:
            return Sum([ahead, ChunkBackward(create(mixer, dim, **options), chunk)])
        return ahead

    blocks = [Block(mix(), hidden=hidden, conv=conv, residual=residual, dropout=dropout) for _ in range(layers)]
    return Stack(blocks, chunk=chunk, norm=norm)
