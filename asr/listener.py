"""Listening to a stream: samples in, segments out as soon as they are sure, in constant memory.

Audio becomes features and memory chunk by chunk (0.8 s). A CTC beam follows. When nothing has been said for a while,
the segment ends: its best readings are weighed again by the attention decoder, its words are aligned, and it is
forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from melstate.asr.beam import Beam, Prefix
from melstate.asr.ctc import align_words
from melstate.asr.diarization import SpeakerTracker
from melstate.asr.encoder import FACTOR
from melstate.asr.features import log_mel
from melstate.asr.language_model import LanguageModel
from melstate.asr.model import SpeechModel
from melstate.asr.sound import Resampler, mono
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.tokens import BLANK, END, FIRST_PIECE, Tokens
from melstate.asr.transcript import Segment, Word

NEVER = -1e4  # log-probability that no sum makes a difference to
TRAIL = 0.12  # seconds that a word sounds on after the peak of its last piece, at most


@dataclass(frozen=True)
class Decoding:
    """How text is found.

    Attributes:
        width: prefixes in the CTC beam.
        language: weight of the language model. bonus: added for every word.
        attention: weight of the decoder against CTC when a segment's readings are weighed; 0 leaves it out.
        readings: how many are weighed.
        pause: seconds without speech that end a segment. longest: seconds after which one ends anyhow.
        quiet: log-mel that the loudest band must reach for a frame to count as sound at all.
        sure: segments whose words are less probable on average are noise.
        same_voice: cosine from which two stretches are by one speaker.
    """

    width: int = 16
    language: float = 0.5
    bonus: float = 1.0
    attention: float = 0.4
    readings: int = 8
    pause: float = 0.6
    longest: float = 20.0
    quiet: float = -8.5
    sure: float = 0.25
    same_voice: float = 0.5


class Parts(NamedTuple):
    """What a listener listens with."""

    model: SpeechModel
    tokens: Tokens
    language: LanguageModel | None = None
    voices: SpeakerEncoder | None = None


class Listener:
    """One stream. Any split of the samples gives the same segments.

    Args:
        parts: the models.
        sample_rate: Hz of what is fed.
        decoding: how text is found.
        speakers: tell speakers apart; needs `parts.voices`.
    Attributes:
        partial: words of the segment that is still open; they may change.
        seconds: fed so far.
    """

    def __init__(
        self, parts: Parts, sample_rate: int, decoding: Decoding | None = None, *, speakers: bool = False
    ) -> None:
        if speakers and parts.voices is None:
            raise ValueError("this recogniser has no speaker encoder; it cannot tell speakers apart")
        self.parts, self.decoding = parts, decoding or Decoding()
        self.rate = parts.model.mel.sample_rate
        self.device = parts.model.ctc.weight.device
        self.frame_seconds = FACTOR * parts.model.mel.hop / self.rate
        self.beam = Beam(
            parts.tokens,
            parts.language,
            width=self.decoding.width,
            weight=self.decoding.language,
            bonus=self.decoding.bonus if parts.language else 0.0,
        )
        self._resampler = Resampler(sample_rate, self.rate)
        self._sample_rate, self._fed, self._finished = sample_rate, 0, False
        self._tail: Tensor | None = None
        self._encoder_state = None
        dim = parts.model.encoder.dim
        # the open segment: memory, CTC and audio from frame `_first` on
        self._first = 0
        self._memory = torch.zeros(1, 0, dim, device=self.device)
        self._log_probs = np.zeros((0, len(parts.tokens)), np.float32)
        self._prefixes = self.beam.start()
        self._beamed = self._seen = 0  # frames of the segment that the beam, and the search for its end, have seen
        self._spoken, self._still = False, 0  # whether anything was said, and frames since
        self._voices = SpeakerTracker(parts.voices.dim, self.decoding.same_voice) if speakers and parts.voices else None
        self._tracked = self._voices.start() if self._voices else None
        self._audio = np.zeros(0, np.float32)
        self._quiet_mels = torch.zeros(0)

    @property
    def seconds(self) -> float:
        return self._fed / self._sample_rate

    @property
    def partial(self) -> str:
        return self.parts.tokens.decode(self._prefixes[0].tokens) if self._spoken else ""

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """The segments that these samples complete.

        Args:
            samples: (samples,) or (samples, channels), floats in [-1, 1] or signed integers.
        Raises: SoundError: samples of another shape or not finite. RuntimeError: after `finish`.
        """
        if self._finished:
            raise RuntimeError("the stream was finished; start another")
        samples = mono(samples)
        self._fed += len(samples)
        return self._hear(self._resampler.feed(samples), final=False)

    def finish(self) -> list[Segment]:
        """The segments that were still open. Nothing can be fed after."""
        if self._finished:
            return []
        self._finished = True
        segments = self._hear(self._resampler.flush(), final=True)
        if self._spoken:
            segments += self._close(self._seen)
        return segments

    @torch.inference_mode()
    def _hear(self, samples: np.ndarray, *, final: bool) -> list[Segment]:
        model = self.parts.model
        audio = torch.from_numpy(np.ascontiguousarray(samples)).to(self.device)[None]
        mel, self._tail = log_mel(audio, model.mel, self._tail)
        memory, self._encoder_state = model.encoder(mel, self._encoder_state, final=final)
        if self._voices:
            self._audio = np.concatenate([self._audio, samples])
        loudest = torch.cat([self._quiet_mels, mel[0].amax(1).cpu()])
        frames = memory.values.shape[1]
        self._quiet_mels = loudest[frames * FACTOR :]
        if not frames:
            return []
        log_probs = model.token_log_probs(memory.values)[0].cpu().numpy()
        heard = torch.nn.functional.pad(
            loudest[: frames * FACTOR], (0, max(0, frames * FACTOR - len(loudest))), value=NEVER
        )
        silent = (heard.reshape(-1, FACTOR).amax(1) < self.decoding.quiet).numpy()
        log_probs[silent] = NEVER
        log_probs[silent, BLANK] = 0.0
        self._memory = torch.cat([self._memory, memory.values], dim=1)
        self._log_probs = np.concatenate([self._log_probs, log_probs])
        return self._follow()

    def _follow(self) -> list[Segment]:
        """Walks the new frames, and closes segments where they end."""
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
        self._first += frames
        self._memory, self._log_probs = self._memory[:, frames:], self._log_probs[frames:]
        self._audio = self._audio[frames * FACTOR * self.parts.model.mel.hop :]
        self._prefixes, self._beamed, self._seen = self.beam.start(), 0, 0
        self._spoken, self._still = False, 0

    @torch.inference_mode()
    def _close(self, frames: int) -> list[Segment]:
        """What was said in the first frames of the open segment: nothing, one segment, or one a speaker's turn."""
        self._advance(frames)
        log_probs = self._log_probs[:frames]
        tokens = self._weigh(self.beam.finish(self._prefixes), self._memory[:, :frames])
        words = self._timed(tokens, log_probs)
        if not words or sum(word.probability for word in words) < self.decoding.sure * len(words):
            return []
        if self._voices is None:
            return [Segment(tuple(words))]
        return self._by_speaker(words)

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

    def _timed(self, tokens: Sequence[int], log_probs: np.ndarray) -> list[Word]:
        spoken = align_words(torch.from_numpy(log_probs), tokens, self.parts.tokens)
        words: list[Word] = []
        trail = round(TRAIL / self.frame_seconds)
        for number, said in enumerate(spoken):
            following = spoken[number + 1][0].start if number + 1 < len(spoken) else len(log_probs)
            stop = min(said[-1].stop + trail, max(following, said[-1].stop))
            probability = math.exp(sum(math.log(max(piece.probability, 1e-9)) for piece in said) / len(said))
            start, end = ((self._first + frame) * self.frame_seconds for frame in (said[0].start, stop))
            text = self.parts.tokens.decode(piece.token for piece in said)
            words.append(Word(text, start, min(end, max(self.seconds, start)), probability))
        return words

    def _by_speaker(self, words: Sequence[Word]) -> list[Segment]:
        """The words in turns: a new turn where a stretch between small gaps is by another speaker."""
        assert self._voices is not None and self._tracked is not None and self.parts.voices is not None
        turns: list[list[Word]] = []
        begin = self._first * self.frame_seconds
        for stretch in stretches(words):
            bounds = (int((t - begin) * self.rate) for t in (stretch[0].start, stretch[-1].end))
            audio = self._audio[slice(*bounds)]
            if not len(audio) or not audio.any():
                speaker = turns[-1][-1].speaker if turns else None
            else:
                voice = self.parts.voices.embed(audio)
                speaker, self._tracked = self._voices.assign(voice, self._tracked, len(audio) / self.rate)
            named = [replace(word, speaker=speaker) for word in stretch]
            if turns and turns[-1][-1].speaker == speaker:
                turns[-1] += named
            else:
                turns.append(named)
        return [Segment(tuple(turn)) for turn in turns]


def stretches(words: Sequence[Word], gap: float = 0.25) -> list[list[Word]]:
    """Words grouped where `gap` seconds of silence lie between."""
    groups: list[list[Word]] = []
    for word in words:
        if groups and word.start - groups[-1][-1].end < gap:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups
