"""Striding attention: the decoder reads hours through a window that moves when its attention has moved.

Only the window's memory is kept. The decoder's attention focus (its mean position in the window) tells how far the text
has come. Past `ahead` of the window, the window strides; the text inside the new window is read again as context, once,
in parallel. When the focus stalls, or stalls while words repeat, the tokens after its last gain are taken back and the
window moves on without them. CTC has a say: where it hears nothing, no token is taken.

Source: Mao et al. 2020, arXiv:2005.08072, with rollback, per-window positions and the CTC check added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from melstate.asr.decoder import Decoder, DecoderState, Window
from melstate.asr.tokens import BLANK, END, FIRST_PIECE, Tokens


class Written(NamedTuple):
    """A token and the memory frame, counted from the recording's start, that the decoder looked at for it."""

    token: int
    frame: int


class StridingState(NamedTuple):
    """What is kept between calls.

    Attributes:
        memory: (1, n, D) from frame `start` on. voiced: (n,) how surely CTC heard something, in [0, 1].
        start: frame of the recording that memory begins with.
        context: tokens written that lie in the window.
    """

    memory: Tensor
    voiced: Tensor
    start: int
    context: tuple[Written, ...]


@dataclass(frozen=True)
class Striding:
    """Decodes a memory that grows for ever, in constant space.

    Attributes:
        decoder, tokens: the model's.
        window: memory frames the decoder sees at once (40 ms each).
        stride: part of a window it moves by. ahead: focus from which it moves. skip: part it moves by after a stall.
        patience: tokens without a gain of focus that make a stall; half of it while words repeat.
        heard: least `voiced` within `reach` frames of the focus for a token to be taken.
    """

    decoder: Decoder
    tokens: Tokens
    window: int = 400
    stride: float = 0.25
    ahead: float = 0.5
    skip: float = 0.1
    patience: int = 16
    heard: float = 0.2
    reach: int = 25

    def __post_init__(self) -> None:
        if self.window < 4 or not 0 < self.skip <= self.stride <= self.ahead < 1 or self.patience < 2:
            raise ValueError(
                "striding: need window >= 4, 0 < skip <= stride <= ahead < 1 and patience >= 2, got "
                f"{self.window}, {self.skip}, {self.stride}, {self.ahead}, {self.patience}"
            )

    def init_state(self, like: Tensor) -> StridingState:
        """The state before the first frame; `like` gives device and dtype."""
        return StridingState(like.new_zeros(1, 0, self.decoder.memory_dim), like.new_zeros(0), 0, ())

    def advance(
        self, state: StridingState, memory: Tensor, voiced: Tensor, *, final: bool = False
    ) -> tuple[list[Written], StridingState]:
        """Decodes as far as whole windows go, and to the end if `final`.

        Args:
            memory: (1, n, D) the next frames. voiced: (n,) one minus CTC's blank probability.
        Returns: tokens that will not change any more, speakers' and ends included, and the new state.
        """
        state = state._replace(
            memory=torch.cat([state.memory, memory], dim=1), voiced=torch.cat([state.voiced, voiced])
        )
        written: list[Written] = []
        while state.memory.shape[1] >= self.window + self._frames(self.stride):
            found, moved = self._read(state, last=False)
            written += found[len(state.context) :]
            state = self._move(state, found, moved)
        while final and state.memory.shape[1]:
            last = state.memory.shape[1] <= self.window
            found, moved = self._read(state, last=last)
            written += found[len(state.context) :]
            state = self._move(state, found, state.memory.shape[1] if last else moved)
        return written, state

    def _frames(self, part: float) -> int:
        return max(1, round(part * self.window))

    def _move(self, state: StridingState, found: Sequence[Written], frames: int) -> StridingState:
        """The window at least `frames` further, so that it starts between two words, not inside one that is written."""
        start, end = state.start + frames, state.start + state.memory.shape[1]
        kept = len(found)
        for i, w in enumerate(found):
            if start <= w.frame < end and (self.tokens.opens(w.token) or w.token < FIRST_PIECE):
                kept = i
                between = (found[i - 1].frame + w.frame + 1) // 2 if i else start
                start = min(max(start, between), w.frame)
                break
        frames = start - state.start
        return StridingState(state.memory[:, frames:], state.voiced[frames:], start, tuple(found[kept:]))

    @torch.inference_mode()
    def _read(self, state: StridingState, *, last: bool) -> tuple[list[Written], int]:
        """Writes in one window until its focus is ahead, it stalls or it says that nothing more follows.

        Returns: the context and what was added, and by how many frames to move.
        """
        memory, voiced = state.memory[:, : self.window], state.voiced[: self.window]
        window = self.decoder.window(memory)
        found = list(state.context)
        heard = [END, *(w.token for w in found)]
        logits, focus, cache = self._step(heard, window, None)
        best = found[-1].frame if found else -1  # what was read before is no gain
        gained, most = len(found), 2 * memory.shape[1]
        ahead = state.start + self.ahead * memory.shape[1]
        while len(found) - len(state.context) < most:
            logits[BLANK] = -torch.inf
            token = int(logits.argmax())
            if token == END and heard[-1] == END:
                break
            place = min(round(focus * memory.shape[1]), memory.shape[1] - 1)
            if token >= FIRST_PIECE and not self._hears(voiced, place):
                break
            found.append(Written(token, state.start + place))
            heard.append(token)
            if state.start + place > best:
                best, gained = state.start + place, len(found)
            waited = len(found) - gained
            if waited >= self.patience or (waited >= self.patience // 2 and repeats(heard)):
                return found[:gained], self._frames(self.skip if best < ahead else self.stride)
            if not last and best > ahead:
                break
            logits, focus, cache = self._step(heard[-1:], window, cache)
        return found, self._frames(self.stride)

    def _step(
        self, heard: Sequence[int], window: Window, cache: DecoderState | None
    ) -> tuple[Tensor, float, DecoderState]:
        logits, focus, cache = self.decoder(torch.tensor([list(heard)], device=window.keys.device), window, cache)
        return logits[0, -1].clone(), float(focus[0, -1]), cache

    def _hears(self, voiced: Tensor, place: int) -> bool:
        around = voiced[max(0, place - self.reach) : place + self.reach + 1]
        return bool(around.numel()) and float(around.max()) >= self.heard


def repeats(tokens: Sequence[int], length: int = 5, times: int = 3) -> bool:
    """Whether the tokens end in some phrase of up to `length` tokens said `times` times in a row."""
    for size in range(1, length + 1):
        tail = tokens[-size * times :]
        if len(tail) == size * times and all(tail[i] == tail[i % size] for i in range(len(tail))):
            return True
    return False
