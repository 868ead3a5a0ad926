"""Text by CTC: a beam follows the stream; when nothing has been said for a while, the segment ends.

Its best readings are weighed again by the attention decoder, its words are aligned, and it is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from melstate.asr.beam import Beam, Prefix
from melstate.asr.decoding import Decoding
from melstate.asr.listener import Listener, Parts
from melstate.asr.tokens import BLANK, END, FIRST_PIECE
from melstate.asr.transcript import Segment


class BeamListener(Listener):
    """A segment is what lies between two pauses, told by CTC; its words come when it ends."""

    def __init__(
        self, parts: Parts, sample_rate: int, decoding: Decoding | None = None, *, speakers: bool = False
    ) -> None:
        super().__init__(parts, sample_rate, decoding, speakers=speakers)
        self.beam = Beam(
            parts.tokens,
            parts.language,
            width=self.decoding.width,
            weight=self.decoding.language,
            bonus=self.decoding.bonus if parts.language else 0.0,
        )
        self._memory = torch.zeros(1, 0, parts.model.encoder.dim, device=self.device)  # from frame `_first` on
        self._prefixes = self.beam.start()
        self._beamed = self._seen = 0  # frames of the segment that the beam, and the search for its end, have seen
        self._spoken, self._still = False, 0  # whether anything was said, and frames since

    @property
    def partial(self) -> str:
        return self.parts.tokens.decode(self._prefixes[0].tokens) if self._spoken else ""

    def _follow(self, memory: Tensor, log_probs: np.ndarray) -> list[Segment]:
        """Walks the new frames, and closes segments where they end."""
        self._memory = torch.cat([self._memory, memory], dim=1)
        self._log_probs = np.concatenate([self._log_probs, log_probs])
        segments: list[Segment] = []
        pause, longest = (max(2, round(s / self.frame_seconds)) for s in (self.decoding.pause, self.decoding.longest))
        while self._seen < len(self._log_probs):
            still = self._log_probs[self._seen, BLANK] > math.log(0.5)
            self._seen += 1
            self._still = self._still + 1 if still else 0
            self._spoken |= not still
            if self._spoken and self._still >= pause:
                segments += self._close(self._seen)
                self._drop(self._seen - pause // 2)
            elif self._spoken and self._seen >= longest:
                cut = self._gap()
                segments += self._close(cut)
                self._drop(cut)
            elif not self._spoken and self._seen >= pause:
                self._drop(self._seen - pause // 2)
        self._advance(self._seen)
        return segments

    def _rest(self) -> list[Segment]:
        return self._close(self._seen) if self._spoken else []

    def _advance(self, frames: int) -> None:
        """Moves the beam to so many frames of the segment, from the start if it is beyond."""
        if frames < self._beamed:
            self._prefixes, self._beamed = self.beam.start(), 0
        self._prefixes = self.beam.advance(self._prefixes, self._log_probs[self._beamed : frames])
        self._beamed = frames

    def _gap(self) -> int:
        """The middle of the longest pause in the second half of the segment; its end if there is none."""
        blank = self._log_probs[: self._seen, BLANK] > math.log(0.5)
        best, cut, run = 0, self._seen, 0
        for frame in range(self._seen // 2, self._seen):
            run = run + 1 if blank[frame] else 0
            if run > best:
                best, cut = run, frame + 1 - run // 2
        return cut

    def _drop(self, frames: int) -> None:
        """Forgets the segment's first frames and walks the rest anew."""
        super()._drop(frames)
        self._memory = self._memory[:, frames:]
        self._prefixes, self._beamed, self._seen = self.beam.start(), 0, 0
        self._spoken, self._still = False, 0

    @torch.inference_mode()
    def _close(self, frames: int) -> list[Segment]:
        """What was said in the first frames of the open segment."""
        self._advance(frames)
        tokens = self._weigh(self.beam.finish(self._prefixes), self._memory[:, :frames])
        return self._segments(self._timed(tokens, frames))

    @torch.inference_mode()
    def readings(self) -> list[tuple[tuple[int, ...], float, float]]:
        """What the open segment may say, best first by CTC and language: tokens, and their log-probabilities by CTC and
        by the attention decoder (0 without one)."""
        self._advance(self._seen)
        prefixes = self.beam.finish(self._prefixes)[: self.decoding.readings]
        attention = self._attention(prefixes, self._memory[:, : self._seen])
        return [(p.tokens, p.acoustic, a) for p, a in zip(prefixes, attention, strict=True)]

    def _weigh(self, prefixes: Sequence[Prefix], memory: Tensor) -> tuple[int, ...]:
        """The best reading by CTC, language model and attention together."""
        share = self.decoding.attention
        prefixes = prefixes[: self.decoding.readings]
        if self.parts.model.decoder is None or not share or len(prefixes) == 1:
            return prefixes[0].tokens
        attention = self._attention(prefixes, memory)
        totals = [(1 - share) * p.acoustic + share * a + p.language for p, a in zip(prefixes, attention, strict=True)]
        return prefixes[int(np.argmax(totals))].tokens

    def _attention(self, prefixes: Sequence[Prefix], memory: Tensor) -> list[float]:
        """The decoder's log-probability of each reading and that the utterance ends after it."""
        decoder = self.parts.model.decoder
        if decoder is None or not memory.shape[1]:
            return [0.0] * len(prefixes)
        lengths = torch.tensor([len(prefix.tokens) + 1 for prefix in prefixes], device=self.device)
        heard = torch.full((len(prefixes), int(lengths.max())), END, device=self.device)
        for row, prefix in zip(heard, prefixes, strict=True):
            row[1 : len(prefix.tokens) + 1] = torch.tensor(prefix.tokens, dtype=torch.long)
        logits, _, _ = decoder(heard, decoder.window(memory), lengths=lengths)
        scores = logits.float().log_softmax(-1)
        totals = []
        for row, prefix in enumerate(prefixes):
            count = len(prefix.tokens)
            said = scores[row, torch.arange(count), list(prefix.tokens)].sum()
            ended = scores[row, count, END:FIRST_PIECE].logsumexp(0)  # a speaker's name, or the end
            totals.append(float(said + ended))
        return totals
