"""Listening to a stream: samples in, segments out as soon as they are sure, in constant memory.

Audio becomes features, memory and CTC probabilities chunk by chunk (0.8 s). How text comes of them differs: see
`beam_listener` and `striding_listener`. Words are timed by their CTC alignment, and told apart by voice, here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from melstate.asr.comfort_noise import PIECE, comfort_noise
from melstate.asr.ctc import Aligned
from melstate.asr.decoding import Decoding
from melstate.asr.diarization import SpeakerTracker
from melstate.asr.encoder import FACTOR, Memory
from melstate.asr.features import log_mel
from melstate.asr.language_model import LanguageModel
from melstate.asr.model import SpeechModel
from melstate.asr.pronunciations import Pronunciations
from melstate.asr.sound import Resampler, mono
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.tokens import BLANK, Tokens
from melstate.asr.transcript import Segment, Word

NEVER = -1e4  # log-probability that no sum makes a difference to
TRAIL = 0.12  # seconds that a word sounds on after the peak of its last piece, at most


class Parts(NamedTuple):
    """What a listener listens with."""

    model: SpeechModel
    tokens: Tokens
    language: LanguageModel | None = None
    voices: SpeakerEncoder | None = None
    spoken: Pronunciations | None = None


class Heard(NamedTuple):
    """Frames of speech.

    Attributes:
        memory: (1, n, D). pieces, phones: (n, V) and (n, P) CTC log-probabilities with silence blanked; P is 0 where
            nothing goes by phones.
    """

    memory: Tensor
    pieces: np.ndarray
    phones: np.ndarray

    def chunks(self, size: int) -> Iterator[Heard]:
        for start in range(0, len(self.pieces), size):
            part = slice(start, start + size)
            yield Heard(self.memory[:, part], self.pieces[part], self.phones[part])


class AlignedWord(NamedTuple):
    """A word and the frames of its pieces or phones."""

    text: str
    units: Sequence[Aligned]


class Listener(ABC):
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
        self._resampler = Resampler(sample_rate, self.rate)
        self._sample_rate, self._fed, self._finished = sample_rate, 0, False
        self._edge = round(self.decoding.edge / self.frame_seconds) * FACTOR * parts.model.mel.hop  # samples
        # The beginning waits for what completes the first chunk: a recording that ends before is heard in noise like
        # its own, as `comfort_noise` has it; in longer ones that costs words.
        self._short = max(PIECE, parts.model.encoder.frames * parts.model.mel.hop - self._edge)
        self._beginning: np.ndarray | None = np.zeros(0, np.float32)
        self._tail: Tensor | None = None
        self._encoder_state = None
        # the open segment: CTC and audio from frame `_first` on
        self._first = 0
        self._log_probs = np.zeros((0, len(parts.tokens)), np.float32)
        by_phones = parts.model.phones if self.decoding.method == "words" else None
        self._phone_head = by_phones
        self._phones = np.zeros((0, by_phones.out_features if by_phones is not None else 0), np.float32)
        self._voices = SpeakerTracker(parts.voices.dim, self.decoding.same_voice) if speakers and parts.voices else None
        self._tracked = self._voices.start() if self._voices else None
        self._audio = np.zeros(0, np.float32)
        self._loudest = torch.zeros(0)  # mel frames of the chunk that is not heard yet
        self._sounded = False  # whether the chunk before held sound

    @property
    def seconds(self) -> float:
        return self._fed / self._sample_rate

    @property
    @abstractmethod
    def partial(self) -> str:
        """Words of the segment that is still open; they may change."""

    @abstractmethod
    def _follow(self, heard: Heard) -> list[Segment]:
        """The segments that end with the next frames."""

    @abstractmethod
    def _rest(self) -> list[Segment]:
        """The segments that are still open when nothing more comes."""

    def feed(self, samples: np.ndarray) -> list[Segment]:
        """The segments that these samples complete.

        Args:
            samples: (samples,) or (samples, channels), floats in [-1, 1] or signed integers.
        Raises: SoundError: samples of another shape or not finite. RuntimeError: after `finish`.
        """
        if self._finished:
            raise RuntimeError("the stream was finished; start another")
        samples = mono(samples)
        if not len(samples):
            return []
        self._fed += len(samples)
        samples = self._resampler.feed(samples)
        if self._beginning is not None:
            samples = np.concatenate([self._beginning, samples])
            if len(samples) < self._short:
                self._beginning = samples
                return []
            self._beginning, samples = None, np.concatenate([comfort_noise(samples[:0], self._edge), samples])
        return self._placed(self._hear(samples, final=False))

    def finish(self) -> list[Segment]:
        """The segments that were still open. Nothing can be fed after."""
        if self._finished:
            return []
        self._finished = True
        if not self._fed:
            return []
        samples = self._resampler.flush()
        if self._beginning is not None:
            whole = np.concatenate([self._beginning, samples])
            edge = comfort_noise(whole, self._edge)
            samples = np.concatenate([edge, whole, edge])
        else:
            samples = np.concatenate([samples, comfort_noise(samples[:0], self._edge)])
        return self._placed(self._hear(samples, final=True) + self._rest())

    @torch.inference_mode()
    def _hear(self, samples: np.ndarray, *, final: bool) -> list[Segment]:
        model = self.parts.model
        audio = torch.from_numpy(np.ascontiguousarray(samples)).to(self.device)[None]
        mel, self._tail = log_mel(audio, model.mel, self._tail)
        memory, self._encoder_state = model.encoder(mel, self._encoder_state, final=final)
        if self._voices:
            self._audio = np.concatenate([self._audio, samples])
        self._loudest = torch.cat([self._loudest, mel[0].amax(1).cpu()])
        frames = memory.values.shape[1]
        if not frames:
            return []
        return self._follow(self._heard(memory, self._silent(frames)))

    def _heard(self, memory: Memory, silent: np.ndarray) -> Heard:
        """What the memory says, frame by frame; nothing where it is silent."""
        pieces = self.parts.model.token_log_probs(memory.values)[0].cpu().numpy()
        phones = np.zeros((len(pieces), 0), np.float32)
        if self._phone_head is not None:
            phones = self._phone_head(memory.tapped).float().log_softmax(-1)[0].cpu().numpy()
        for log_probs in (pieces, phones):
            log_probs[silent] = NEVER
            log_probs[silent, BLANK : BLANK + 1] = 0.0
        return Heard(memory.values, pieces, phones)

    @property
    def _waiting(self) -> int:
        """Mel frames of the chunk that is not complete, in halves of one. In quarters words are shown 0.2 s sooner, for
        65 % more work."""
        encoder, state = self.parts.model.encoder, self._encoder_state
        if state is None or not encoder.streamed:
            return 0
        half = encoder.frames // 2
        return state.waiting.shape[1] // half * half

    @torch.inference_mode()
    def _ahead(self) -> Heard | None:
        """The first half of the chunk that is not complete, heard as if nothing followed; None if there is no sound in
        it. It changes nothing: the chunk is heard again as a whole."""
        frames, state = self._waiting, self._encoder_state
        if state is None or not (self._loudest[:frames] >= self.decoding.quiet).any():
            return None
        waiting = state._replace(waiting=state.waiting[:, :frames])
        memory, _ = self.parts.model.encoder(state.waiting[:, :0], waiting, final=True)
        return self._heard(memory, np.zeros(memory.values.shape[1], bool))

    def _silent(self, frames: int) -> np.ndarray:
        """Which of the next (frames,) lie in a chunk without sound after another one. A chunk with sound is heard as a
        whole: CTC may have placed its words early, and may place them late."""
        size = self.parts.model.encoder.frames
        sounds = [bool((part >= self.decoding.quiet).any()) for part in self._loudest[: frames * FACTOR].split(size)]
        self._loudest = self._loudest[frames * FACTOR :]
        before = [self._sounded, *sounds[:-1]]
        self._sounded = sounds[-1]
        silent = [not (now or then) for now, then in zip(sounds, before, strict=True)]
        return np.repeat(silent, size // FACTOR)[:frames]

    def _keep(self, heard: Heard) -> None:
        """Adds the frames to those of the open segment."""
        self._log_probs = np.concatenate([self._log_probs, heard.pieces])
        self._phones = np.concatenate([self._phones, heard.phones])

    def _drop(self, frames: int) -> None:
        """Forgets the first frames that are kept."""
        self._first += frames
        self._log_probs, self._phones = self._log_probs[frames:], self._phones[frames:]
        self._audio = self._audio[frames * FACTOR * self.parts.model.mel.hop :]

    def _timed(self, spoken: Sequence[AlignedWord], frames: int) -> list[Word]:
        """The words with their times, when they were aligned within so many of the frames that are kept."""
        words: list[Word] = []
        trail = round(TRAIL / self.frame_seconds)
        for number, (text, units) in enumerate(spoken):
            following = spoken[number + 1].units[0].start if number + 1 < len(spoken) else frames
            stop = min(units[-1].stop + trail, max(following, units[-1].stop))
            probability = math.exp(sum(math.log(max(unit.probability, 1e-9)) for unit in units) / len(units))
            start, end = ((self._first + frame) * self.frame_seconds for frame in (units[0].start, stop))
            words.append(Word(text, start, end, probability))
        return words

    def _placed(self, segments: Sequence[Segment]) -> list[Segment]:
        """The segments by the clock of what was fed, which knows of no edges."""
        edge, last = self._edge / self.rate, self.seconds

        def placed(word: Word) -> Word:
            start = min(max(0.0, word.start - edge), max(0.0, last - self.frame_seconds))
            return replace(word, start=start, end=min(max(start, word.end - edge), last))

        return [Segment(tuple(placed(word) for word in segment.words)) for segment in segments]

    def _segments(self, words: Sequence[Word]) -> list[Segment]:
        """The words between two pauses: nothing if they are not sure, one segment, or one a speaker's turn."""
        # Pieces are less sure of themselves than phones, and no less right.
        least = self.decoding.agreed if self._phone_head is None else self.decoding.sure
        if not words or sum(word.probability for word in words) < least * len(words):
            return []
        return [Segment(tuple(words))] if self._voices is None else self._by_speaker(words)

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
