"""Text by search: a beam follows the stream; when nothing has been said for a while, the segment ends.

The beam goes by pieces of words, or by phones through a tree of pronunciations. Its best readings are weighed again by
the pieces' CTC and by the attention decoder, the words of the best one are aligned, and the segment is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.asr.beam import NEVER, Beam
from melstate.asr.ctc import align
from melstate.asr.decoding import Decoding
from melstate.asr.listener import AlignedWord, Heard, Listener, Parts
from melstate.asr.reading import Reading, Search
from melstate.asr.tokens import BLANK, END, FIRST_PIECE
from melstate.asr.transcript import Segment
from melstate.asr.word_beam import WordBeam

STILL = math.log(0.5)  # log-probability of a blank above which nothing is said in a frame


class Weighed(NamedTuple):
    """A reading, and its log-probabilities by the language model, the pieces' CTC and attention; 0 where nobody asked
    for them."""

    reading: Reading
    language: float
    pieces: float
    attention: float


class Weights(NamedTuple):
    """What each counts when readings are weighed, as in Decoding; the search has what pieces and attention leave."""

    language: float
    bonus: float
    pieces: float
    attention: float

    def total(self, one: Weighed) -> float:
        searched = (1 - self.pieces - self.attention) * one.reading.acoustic + self.bonus * len(one.reading.words)
        others = (self.language, one.language), (self.pieces, one.pieces), (self.attention, one.attention)
        return searched + sum(share * score for share, score in others if share)  # 0 × −∞ is nothing


def make_search(parts: Parts, decoding: Decoding) -> Search:
    """The search that the settings ask for.

    Raises: ValueError: "words" without pronunciations, language model or phone head.
    """
    if decoding.method == "words":
        if parts.spoken is None or parts.language is None or parts.model.phones is None:
            raise ValueError("method 'words' needs pronunciations, a language model and a phone head; use 'ctc'")
        return WordBeam(parts.spoken, parts.language, decoding.width, weight=decoding.language, bonus=decoding.bonus)
    return Beam(
        parts.tokens,
        parts.language,
        width=decoding.width,
        weight=decoding.language,
        bonus=decoding.bonus if parts.language else 0.0,
    )


class BeamListener(Listener):
    """A segment is what lies between two pauses, told by CTC; its words come when it ends.

    Args:
        search: from `make_search` with the same parts and decoding, where it is kept from stream to stream.
    """

    def __init__(
        self,
        parts: Parts,
        sample_rate: int,
        decoding: Decoding | None = None,
        *,
        speakers: bool = False,
        search: Search | None = None,
    ) -> None:
        super().__init__(parts, sample_rate, decoding, speakers=speakers)
        self.search = make_search(parts, self.decoding) if search is None else search
        self._memory = torch.zeros(1, 0, parts.model.encoder.dim, device=self.device)  # from frame `_first` on
        self._hypotheses = self.search.start()
        self._beamed = self._seen = 0  # frames of the segment that the beam, and the search for its end, have seen
        self._spoken, self._still = False, 0  # whether anything was said, and frames since
        self._shown = (0, 0), ""  # partial words, and after how many frames they were read

    @property
    def partial(self) -> str:
        """Words of the segment that is still open, with those of half a chunk that is not complete; they may change."""
        if self._finished:
            return ""
        heard = self._first + self._seen, self._waiting
        if self._shown[0] != heard:
            self._shown = heard, self._read_ahead()
        return self._shown[1]

    def _read_ahead(self) -> str:
        """The likeliest words so far, if what is said ended here."""
        ahead, hypotheses, spoken = self._ahead(), self._hypotheses, self._spoken
        if ahead is not None:
            spoken |= bool((ahead.pieces[:, BLANK] <= STILL).any())
            layer = ahead.phones if self.search.layer == "phones" else ahead.pieces
            hypotheses = self.search.advance(hypotheses, layer) if spoken else hypotheses
        return self.search.readings(hypotheses)[0].text if spoken else ""

    @property
    def _layer(self) -> np.ndarray:
        """What the search goes by."""
        return self._phones if self.search.layer == "phones" else self._log_probs

    def _follow(self, heard: Heard) -> list[Segment]:
        """Walks the new frames, and closes segments where they end."""
        self._memory = torch.cat([self._memory, heard.memory], dim=1)
        self._keep(heard)
        segments: list[Segment] = []
        pause, longest = (max(2, round(s / self.frame_seconds)) for s in (self.decoding.pause, self.decoding.longest))
        while self._seen < len(self._log_probs):
            still = self._log_probs[self._seen, BLANK] > STILL
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
            self._hypotheses, self._beamed = self.search.start(), 0
        self._hypotheses = self.search.advance(self._hypotheses, self._layer[self._beamed : frames])
        self._beamed = frames

    def _gap(self) -> int:
        """The middle of the longest pause in the second half of the segment; its end if there is none."""
        blank = self._log_probs[: self._seen, BLANK] > STILL
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
        self._hypotheses, self._beamed, self._seen = self.search.start(), 0, 0
        self._spoken, self._still = False, 0

    def _close(self, frames: int) -> list[Segment]:
        """What was said in the first frames of the open segment."""
        self._advance(frames)
        reading = self._choose(self.search.readings(self._hypotheses)[: self.decoding.readings], frames)
        if self.search.layer == "phones" and not self._agreed(reading, frames):
            return []
        aligned = iter(align(torch.from_numpy(self._layer[:frames]), list(chain.from_iterable(reading.units))))
        words = zip(reading.words, reading.units, strict=True)
        spoken = [AlignedWord(text, [next(aligned) for _ in units]) for text, units in words]
        return self._segments(self._timed(spoken, frames))

    def _agreed(self, reading: Reading, frames: int) -> bool:
        """Whether the pieces heard something like it too: phones alone find words in clicks and music."""
        log_probs = torch.from_numpy(self._log_probs[:frames])
        try:
            pieces = align(log_probs, self.parts.tokens.encode(reading.text))
        except ValueError:  # more pieces than frames
            return False
        return sum(piece.probability for piece in pieces) >= self.decoding.agreed * len(pieces)

    def _choose(self, readings: Sequence[Reading], frames: int) -> Reading:
        """The best reading by search, language, pieces and attention together."""
        weights, as_searched = self._weights, (self.decoding.language, self.decoding.bonus, 0.0, 0.0)
        if len(readings) == 1 or weights == as_searched:
            return readings[0]
        weighed = self._weigh(readings, frames, pieces=bool(weights.pieces), attention=bool(weights.attention))
        return max(weighed, key=weights.total).reading

    @property
    def _weights(self) -> Weights:
        """The final weights; what searched by pieces has their weight in it."""
        decoding = self.decoding
        language = decoding.language if decoding.final_language is None else decoding.final_language
        bonus = decoding.bonus if decoding.final_bonus is None else decoding.final_bonus
        pieces = decoding.pieces if self.search.layer == "phones" else 0.0
        attention = decoding.attention if self.parts.model.decoder is not None else 0.0
        return Weights(language, bonus if self.parts.language else 0.0, pieces, attention)

    def readings(self) -> list[Weighed]:
        """What the open segment may say, best first by the search, and what everything else says of it."""
        self._advance(self._seen)
        found = self.search.readings(self._hypotheses)[: self.decoding.readings]
        return self._weigh(found, self._seen, pieces=True, attention=self.parts.model.decoder is not None)

    @torch.inference_mode()
    def _weigh(self, readings: Sequence[Reading], frames: int, *, pieces: bool, attention: bool) -> list[Weighed]:
        by_phones = self.search.layer == "phones"
        written = [
            self.parts.tokens.encode(reading.text) if by_phones else list(chain.from_iterable(reading.units))
            for reading in readings
        ]
        nothing = [0.0] * len(readings)
        by_pieces = self._by_pieces(written, frames) if pieces else nothing
        by_attention = self._by_attention(written, self._memory[:, :frames]) if attention and frames else nothing
        language = self.parts.language
        by_language = [language.log_probability(reading.words) for reading in readings] if language else nothing
        return [Weighed(*one) for one in zip(readings, by_language, by_pieces, by_attention, strict=True)]

    def _by_pieces(self, written: Sequence[Sequence[int]], frames: int) -> list[float]:
        """The log-probability of each text by the pieces' CTC; of those that do not fit, less than any other."""
        lengths = torch.tensor([len(tokens) for tokens in written])
        log_probs = torch.from_numpy(self._log_probs[:frames])[:, None].expand(-1, len(written), -1)
        losses = F.ctc_loss(
            log_probs, _padded(written), torch.full_like(lengths, frames), lengths, blank=BLANK, reduction="none"
        )
        return [-loss if math.isfinite(loss) else NEVER for loss in losses.tolist()]

    def _by_attention(self, written: Sequence[Sequence[int]], memory: Tensor) -> list[float]:
        """The decoder's log-probability of each text and that the utterance ends after it."""
        decoder = self.parts.model.decoder
        assert decoder is not None
        lengths = torch.tensor([len(tokens) + 1 for tokens in written], device=self.device)
        logits, _, _ = decoder(
            _padded([[END, *t] for t in written]).to(self.device), decoder.window(memory), lengths=lengths
        )
        scores = logits.float().log_softmax(-1)
        totals = []
        for row, tokens in enumerate(written):
            said = scores[row, torch.arange(len(tokens)), list(tokens)].sum()
            ended = scores[row, len(tokens), END:FIRST_PIECE].logsumexp(0)  # a speaker's name, or the end
            totals.append(float(said + ended))
        return totals


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """(rows, longest) with END after each."""
    padded = torch.full((len(rows), max(map(len, rows))), END)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return padded
