"""Faster, slower, longer pauses: frames stretched in time one after the other, as they come."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Tempo:
    """Frames of given lengths → frames of length 1, by linear interpolation between neighbours.

    Frame i stands at the sum of the lengths before it; frames of no length are left out, unless there are no others.
    Where all lengths are 1 the frames come out as they went in. How they are split among calls changes nothing. Where a
    symbol's frames are all jumped over, it gets the next frame that comes out: nothing spoken counts as left out.
    """

    def __init__(self) -> None:
        self._time = 0.0  # where the next frame stands
        self._next = 0  # the next frame to come out
        self._owed: list[int] = []  # symbols that no frame has come out for yet
        self._last: tuple[Tensor, int, float, float] | None = None  # the frame before: values, symbol, place, length

    def push(self, values: Tensor, symbol: Sequence[int], lengths: Sequence[float]) -> tuple[Tensor, list[int]]:
        """(t, channels), the symbol each frame speaks, and its length ≥ 0 → the frames that can be told now."""
        frames: list[Tensor] = []
        at: list[int] = []
        for row, here, length in zip(values, symbol, lengths, strict=True):
            if length == 0 and self._last is not None:
                continue
            time = self._time
            if self._last is None or here != self._last[1]:
                self._owed.append(here)
            while self._next <= time:
                share = 1.0
                if self._last is not None and time > self._last[2]:
                    share = (self._next - self._last[2]) / (time - self._last[2])
                if self._last is None or share >= 1.0:
                    frames.append(row)
                else:
                    frames.append(torch.lerp(self._last[0], row, share))
                at.append(self._symbol(here if self._last is None or share >= 0.5 else self._last[1]))
                self._next += 1
            self._last = (row, here, time, length)
            self._time = time + length
        return (torch.stack(frames) if frames else values[:0]), at

    def finish(self) -> tuple[Tensor, list[int]]:
        """What is left: the last frame, for as long as it lasts.

        Raises: RuntimeError: there was no frame.
        """
        if self._last is None:
            raise RuntimeError("tempo: no frame was given")
        row, here, _, _ = self._last
        count = max(0, -int((self._next - self._time) // 1))
        self._next += count
        return row.expand(count, -1), [self._symbol(here) for _ in range(count)]

    def _symbol(self, here: int) -> int:
        """What the next frame is said to speak, where `here` is nearest."""
        return self._owed.pop(0) if self._owed and self._owed[0] <= here else here
