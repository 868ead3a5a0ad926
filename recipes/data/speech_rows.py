"""Training rows for recognition: clips joined by pauses, in rooms and noise, with what is said in them.

Row r of batch k depends on (seed, k, r) alone. A batch's rows have about one length, so little is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from melstate.asr.augment import add_noise, at_level, coloured_noise, knocks, level, random_tone, reverberate
from melstate.asr.features import perturbed_log_mel
from melstate.asr.model import SpeechBatch
from melstate.asr.tokens import END, speaker_token
from melstate.recipes.data.clips import Clip
from melstate.recipes.data.steps import generator
from melstate.vocoders.mel import MelConfig

SPREAD = 20  # clips of one length to choose from, at least
KEPT = 0.5  # seconds of a clip that are left when words are cut off, at least


class Voice(NamedTuple):
    """Arguments of perturbed_log_mel."""

    tempo: float
    pitch: float
    cutoff: float | None
    tone: Tensor | None


@dataclass(frozen=True)
class Augmentation:
    """How speech is changed before it is learned; every `…_chance` is a probability a row.

    Attributes:
        pitch: largest factor of pitch and formants, up or down. tempo: of tempo beyond that.
        level: dBFS, mean and deviation.
        noise_chance, noise_ratio: coloured noise, dB of speech over it (lowest, highest).
        gated_chance: of that noise, how often it is in what is said alone and not in the silence around, as where clips
            were cut out of noisy recordings.
        babble_chance, babble_ratio: other voices, likewise.
        room_chance, room_seconds: reverberation time.
        band_chance, band: Hz, where the band may end.
        tone_chance, tone: another microphone, dB up or down at most; see random_tone.
        knock_chance, knock_ratio: knocks and clicks, dB of the loudest over the mean of speech. Where they may be,
            three of four rows of noise have them too, some in perfect silence.
        silence_chance: rows of noise alone.
        late_chance, late: clips that begin too late and end too early, as recorders that wait for a level make them:
            seconds missing at each end at most, and never more than a quarter of the clip.
        edges: seconds of silence around what is said in a row, at both ends together, about (lowest, highest).
        tight_chance: batches whose rows begin and end with speech, as clips cut at their words' edges do.
    """

    pitch: float = 1.15
    tempo: float = 1.1
    level: tuple[float, float] = (-26.0, 6.0)
    noise_chance: float = 0.6
    noise_ratio: tuple[float, float] = (5.0, 35.0)
    gated_chance: float = 0.0
    babble_chance: float = 0.1
    babble_ratio: tuple[float, float] = (10.0, 25.0)
    room_chance: float = 0.25
    room_seconds: tuple[float, float] = (0.1, 0.6)
    band_chance: float = 0.2
    band: tuple[float, float] = (3200.0, 7000.0)
    tone_chance: float = 0.0
    tone: float = 12.0
    knock_chance: float = 0.0
    knock_ratio: tuple[float, float] = (-10.0, 15.0)
    silence_chance: float = 0.01
    late_chance: float = 0.0
    late: float = 0.12
    edges: tuple[float, float] = (0.4, 0.4)
    tight_chance: float = 0.0

    def voice(self, rng: np.random.Generator, bands: int) -> Voice:
        pitch = float(np.exp(rng.uniform(-1, 1) * np.log(self.pitch)))
        tempo = pitch * float(np.exp(rng.uniform(-1, 1) * np.log(self.tempo)))
        cutoff = float(rng.uniform(*self.band)) if rng.random() < self.band_chance else None
        tone = torch.from_numpy(random_tone(rng, bands, self.tone)) if rng.random() < self.tone_chance else None
        return Voice(tempo, pitch, cutoff, tone)


@dataclass(frozen=True)
class Joining:
    """How clips become rows.

    Attributes:
        chance: that a batch has rows of several clips; the others have one clip a row.
        seconds: a joined batch's length (lowest, highest).
        same_speaker: probability that the next clip is by the same speaker.
        pause: mean seconds between clips (exponential).
        utterance: seconds of pause that end an utterance even if the speaker goes on.
        cut_chance: that a row's first clip lacks its first words, and that its last clip lacks its last ones, where it
            is known where words are: the row is then a window of longer speech, as striding attention sees it (ShiftAug
            of Mao et al. 2020, arXiv:2005.08072).
    """

    chance: float = 0.35
    seconds: tuple[float, float] = (5.0, 16.0)
    same_speaker: float = 0.6
    pause: float = 0.5
    utterance: float = 0.6
    cut_chance: float = 0.0


class Row(NamedTuple):
    """audio (samples,) float32; tokens, phones (none if some are not known); spoken as the decoder writes; text."""

    audio: np.ndarray
    tokens: list[int]
    phones: list[int]
    spoken: list[int]
    text: str


@dataclass
class SpeechRows:
    """Batches by number.

    Args:
        clips: to draw from.
        mel: of the features.
        batch_seconds: about so much speech a batch; most_rows: rows at most.
        seed: of everything drawn.
    """

    clips: Sequence[Clip]
    mel: MelConfig
    batch_seconds: float = 80.0
    most_rows: int = 48
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    joining: Joining = field(default_factory=Joining)

    def __post_init__(self) -> None:
        heard = [clip for clip in self.clips if clip.weight > 0]
        if not heard:
            raise ValueError("no clip to train on")
        self.clips = sorted(heard, key=lambda clip: (len(clip.waveform.speech), clip.waveform.recording.id))
        weights = np.array([clip.weight for clip in self.clips], dtype=np.float64)
        self.chances = weights / weights.sum()
        self.cumulative = np.cumsum(self.chances)
        self.seconds = np.array([len(clip.waveform.speech) for clip in self.clips]) / self.mel.sample_rate
        # A batch holds many short clips or few long ones, so lengths are drawn by share of time, not of clips.
        self.lengths = self.chances * self.seconds / (self.chances * self.seconds).sum()
        self.by_speaker: dict[str, list[int]] = {}
        for number, clip in enumerate(self.clips):
            self.by_speaker.setdefault(clip.speaker, []).append(number)

    def batch(self, index: int) -> SpeechBatch:
        rng = generator(self.seed, index)
        joined = rng.random() < self.joining.chance
        seconds = float(rng.uniform(*self.joining.seconds) if joined else rng.choice(self.seconds, p=self.lengths))
        count = int(np.clip(self.batch_seconds / max(seconds, 0.1), 1, self.most_rows))
        tight = self.augmentation.tight_chance and rng.random() < self.augmentation.tight_chance
        edges = 0.0 if tight else float(rng.uniform(*self.augmentation.edges))
        rows, mels = [], []
        for number in range(count):
            rng = np.random.default_rng([self.seed, index, number])
            voice = self.augmentation.voice(rng, self.mel.n_mels)
            fill = self._joined if joined else self._single
            row = self.row(rng, fill(rng, seconds * voice.tempo), (seconds + edges) * voice.tempo)
            rows.append(row)
            mels.append(perturbed_log_mel(torch.from_numpy(row.audio), self.mel, **voice._asdict()))
        return collate(rows, mels)

    def _pick(self, rng: np.random.Generator, seconds: float = np.inf) -> int:
        """A clip no longer than so many seconds; the shortest if none is."""
        last = max(1, int(np.searchsorted(self.seconds, seconds, side="right")))
        below = self.cumulative[last - 1]
        return min(int(np.searchsorted(self.cumulative, rng.random() * below, side="right")), last - 1)

    def _single(self, rng: np.random.Generator, seconds: float) -> list[int]:
        """One clip of about so many seconds."""
        first, last = np.searchsorted(self.seconds, [0.93 * seconds, 1.07 * seconds])
        first = min(first, len(self.clips) - SPREAD)
        first, last = max(0, first), max(last, first + SPREAD)
        chances = self.chances[first:last]
        return [int(first + rng.choice(len(chances), p=chances / chances.sum()))]

    def _joined(self, rng: np.random.Generator, seconds: float) -> list[int]:
        """Clips that fill about so many seconds; at least one."""
        picks = [self._pick(rng, seconds)]
        left = seconds - self.seconds[picks[0]]
        while left > self.joining.pause + self.seconds[0]:
            number = self._pick(rng, left - self.joining.pause)
            if rng.random() < self.joining.same_speaker:
                same = int(rng.choice(self.by_speaker[self.clips[picks[-1]].speaker]))
                number = same if self.seconds[same] < left else number
            left -= self.seconds[number] + self.joining.pause
            picks.append(number)
        return picks

    def row(self, rng: np.random.Generator, picks: Sequence[int], seconds: float) -> Row:
        """The clips one after the other at one level, silence around them to fill `seconds`, and what is said; now and
        then noise alone. At a cut there is no silence, and after one at the end no mark: speech goes on."""
        options, rate = self.augmentation, self.mel.sample_rate
        if rng.random() < options.silence_chance:
            return Row(self._nothing(rng, int(seconds * rate)), [], [], [END], "")
        clips, begun, broken = self._cut(rng, [self.clips[pick] for pick in picks])
        loudness = rng.normal(*options.level)
        parts: list[np.ndarray] = []
        tokens: list[int] = []
        spoken: list[int] = []
        order: list[str] = []
        for number, clip in enumerate(clips):
            if number:
                pause = float(min(rng.exponential(self.joining.pause), 4.0))
                parts.append(np.zeros(int(pause * rate), np.float32))
                last = clips[number - 1].speaker
                if last != clip.speaker or pause > self.joining.utterance:
                    spoken += [speaker_token(order.index(last)), END]
            whole = len(clips) == 1 and rng.random() < 0.3
            audio = clip.waveform.audio if whole else clip.waveform.speech
            audio = at_level(audio.astype(np.float32) / 32768.0, loudness + rng.normal(0, 2))
            if options.late_chance and rng.random() < options.late_chance:
                most = min(options.late * rate, len(audio) / 4)
                head, tail = (int(most * share) for share in rng.random(2))
                audio = audio[head : len(audio) - tail]
            parts.append(audio)
            if clip.speaker not in order:
                order.append(clip.speaker)
            tokens += clip.tokens
            spoken += clip.tokens
        if not broken:
            spoken += [speaker_token(order.index(clips[-1].speaker)), END, END]
        silence = max(0, int(seconds * rate) - sum(len(part) for part in parts))
        before = int(rng.integers(silence + 1))
        if begun or broken:
            before, silence = (0, 0 if broken else silence) if begun else (silence, silence)
        audio = self._worsen(rng, np.pad(np.concatenate(parts), (before, silence - before)), (before, silence - before))
        known = all(clip.phones or not clip.tokens for clip in clips)
        phones = [phone for clip in clips for phone in clip.phones] if known else []
        return Row(audio, tokens, phones, spoken, " ".join(clip.text for clip in clips))

    def _nothing(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        """What microphones hear where nobody speaks."""
        audio = coloured_noise(rng, samples, rng.uniform(0, 2)) * 10 ** (rng.uniform(-70, -25) / 20)
        if self.augmentation.knock_chance and rng.random() < 0.75:
            audio = audio * (rng.random() < 0.75)
            sounds = knocks(rng, samples, rng.uniform(0.5, 6), self.mel.sample_rate)
            audio = audio + sounds * 10 ** (rng.uniform(-50, -3) / 20)
        return audio.astype(np.float32)

    def _cut(self, rng: np.random.Generator, clips: list[Clip]) -> tuple[list[Clip], bool, bool]:
        """The clips, now and then the first without its first words and the last without its last ones; whether it is
        so. Without words or chance nothing is drawn."""
        least, chance = int(KEPT * self.mel.sample_rate), self.joining.cut_chance
        begun = broken = False
        words = clips[0].words
        if chance and words is not None and len(words.starts) > 1 and rng.random() < chance:
            places = 1 + np.flatnonzero(words.stops[-1] - words.starts[1:] >= least)
            if len(places):
                clips, begun = [clips[0].after(int(rng.choice(places))), *clips[1:]], True
        words = clips[-1].words
        if chance and words is not None and len(words.starts) > 1 and rng.random() < chance:
            places = 1 + np.flatnonzero(words.stops[:-1] - words.starts[0] >= least)
            if len(places):
                clips, broken = [*clips[:-1], clips[-1].before(int(rng.choice(places)))], True
        return clips, begun, broken

    def _worsen(self, rng: np.random.Generator, audio: np.ndarray, silent: tuple[int, int]) -> np.ndarray:
        """The audio with rooms and noises; `silent` samples at its start and end are silence."""
        options, rate = self.augmentation, self.mel.sample_rate
        if rng.random() < options.room_chance:
            audio = reverberate(rng, audio, rng.uniform(*options.room_seconds), rng.uniform(0, 12), rate)
        if rng.random() < options.noise_chance:
            noise = coloured_noise(rng, len(audio), rng.uniform(0, 2))
            noisy = add_noise(audio, noise, rng.uniform(*options.noise_ratio))
            if options.gated_chance and rng.random() < options.gated_chance:
                begin, end = silent[0], len(audio) - silent[1]
                audio = np.concatenate([audio[:begin], noisy[begin:end], audio[end:]])
            else:
                audio = noisy
        if options.knock_chance and rng.random() < options.knock_chance:
            loudest = level(audio) ** 0.5 * 10 ** (rng.uniform(*options.knock_ratio) / 20)
            audio = audio + np.float32(loudest) * knocks(rng, len(audio), rng.uniform(0.5, 4), rate)
        if rng.random() < options.babble_chance:
            voices = np.zeros_like(audio)
            for pick in rng.integers(len(self.clips), size=int(rng.integers(2, 6))):
                voice = self.clips[pick].waveform.speech.astype(np.float32) / 32768.0
                voices += np.roll(np.resize(at_level(voice, -26), len(audio)), int(rng.integers(len(audio))))
            audio = add_noise(audio, voices, rng.uniform(*options.babble_ratio))
        return audio


def collate(rows: Sequence[Row], mels: Sequence[Tensor]) -> SpeechBatch:
    """Rows and their (frames, n_mels) features as one padded batch."""

    def pad(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        lengths = [len(sequence) for sequence in sequences]
        padded = torch.zeros(len(sequences), max(1, *lengths), dtype=torch.long)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        return padded, torch.tensor(lengths)

    frames = torch.tensor([len(mel) for mel in mels])
    return SpeechBatch(
        torch.nn.utils.rnn.pad_sequence(list(mels), batch_first=True),
        frames,
        *pad([row.tokens for row in rows]),
        *pad([row.phones for row in rows]),
        *pad([row.spoken for row in rows]),
        tuple(row.text for row in rows),
    )
