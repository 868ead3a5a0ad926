"""Text by striding attention: the decoder writes through a window that moves along, with CTC to time its words.

What it writes is certain once the window has moved; segments follow a window or so behind the sound. Text that CTC
cannot place is dropped.
"""

from __future__ import annotations

import numpy as np
import torch

from melstate.asr.ctc import align_words
from melstate.asr.decoding import Decoding
from melstate.asr.listener import AlignedWord, Heard, Listener, Parts, stretches
from melstate.asr.striding import Striding, Written
from melstate.asr.tokens import BLANK, FIRST_PIECE
from melstate.asr.transcript import Segment, Word


class StridingListener(Listener):
    """A segment is what lies between two pauses, told by the times of its words.

    Raises: ValueError: the recogniser has no attention decoder.
    """

    def __init__(
        self, parts: Parts, sample_rate: int, decoding: Decoding | None = None, *, speakers: bool = False
    ) -> None:
        super().__init__(parts, sample_rate, decoding, speakers=speakers)
        if parts.model.decoder is None:
            raise ValueError("this recogniser has no attention decoder to stride with; its only method is 'ctc'")
        window = round(self.decoding.window / self.frame_seconds)
        self.striding = Striding(parts.model.decoder, parts.tokens, window=window)
        self._state = self.striding.init_state(parts.model.ctc.weight)
        self._written: list[Written] = []  # of the open segment

    @property
    def partial(self) -> str:
        return self.parts.tokens.decode(written.token for written in self._written)

    def _follow(self, heard: Heard) -> list[Segment]:
        # One chunk at a time, so that it does not matter how many come at once.
        chunks = heard.chunks(self.parts.model.encoder.chunk)
        return [segment for chunk in chunks for segment in self._advance(chunk)]

    def _rest(self) -> list[Segment]:
        return self._advance(Heard(self._state.memory[:, :0], self._log_probs[:0], self._phones[:0]), final=True)

    @torch.inference_mode()
    def _advance(self, heard: Heard, *, final: bool = False) -> list[Segment]:
        self._keep(heard)
        voiced = torch.from_numpy(1 - np.exp(heard.pieces[:, BLANK])).to(self._state.voiced)
        before = self._state.start
        written, self._state = self.striding.advance(self._state, heard.memory, voiced, final=final)
        self._written += written
        return self._settle(final) if final or self._state.start > before else []

    def _settle(self, final: bool) -> list[Segment]:
        """Closes the segments that the window has left behind."""
        reach, left = self.striding.reach, self._state.start
        places = [written.frame for written in self._written if written.token >= FIRST_PIECE]
        if not places:
            self._written = []
            self._drop(max(0, left - reach - self._first))
            return []
        # Beyond what was written there may be words that were heard but are not written yet.
        frames = len(self._log_probs) if final else max(0, max(max(places) + reach, left) - self._first)
        try:
            words = self._timed(self._aligned(frames), frames)
        except ValueError:  # more text than CTC finds frames for
            words = []
        if not words:
            late = (left - self._first) * self.frame_seconds > self.decoding.longest
            if final or late or left > max(places) + reach:
                self._written = []
            return []
        closed = self._closed(words, np.inf if final else left * self.frame_seconds)
        segments = [segment for group in closed for segment in self._segments(group)]
        self._forget(words, sum(map(len, closed)))
        return segments

    def _aligned(self, frames: int) -> list[AlignedWord]:
        """The words that were written, by the pieces' CTC. Raises ValueError: they need more frames."""
        tokens, log_probs = self.parts.tokens, torch.from_numpy(self._log_probs[:frames])
        words = align_words(log_probs, [written.token for written in self._written], tokens)
        return [AlignedWord(tokens.decode(piece.token for piece in word), word) for word in words]

    def _closed(self, words: list[Word], left: float) -> list[list[Word]]:
        """The words of finished segments, when nothing will be written before `left` seconds."""
        *closed, group = stretches(words, self.decoding.pause)
        if left >= group[-1].end + self.decoding.pause:
            return [*closed, group]
        if group[-1].end - group[0].start >= self.decoding.longest:
            # At the widest gap of the second half; a word alone that lasts so long is no word, but must end too.
            gaps = [after.start - before.end for before, after in zip(group, group[1:], strict=False)] or [0.0]
            half = len(gaps) // 2
            closed.append(group[: half + 1 + int(np.argmax(gaps[half:]))])
        return closed

    def _forget(self, words: list[Word], count: int) -> None:
        """Drops the first words that were written, and their frames."""
        if not count:
            return
        tokens = [written.token for written in self._written]
        kept = self.parts.tokens.words(tokens)[count:]
        begin = next(i for i in range(len(tokens), -1, -1) if self.parts.tokens.words(tokens[i:]) == kept)
        self._written = self._written[begin:]
        after = words[count].start if kept else words[count - 1].end + self.decoding.pause
        cut = round((words[count - 1].end + after) / 2 / self.frame_seconds) - self._first
        self._drop(min(max(0, cut), len(self._log_probs)))
