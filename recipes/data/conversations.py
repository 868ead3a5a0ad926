"""Conversations of any length out of short clips: planned by a seed, kept as a small manifest, rebuilt block by block.

A conversation is scenes of four speakers who take turns of one to eight words with short gaps, broken by long silences
and stretches of noise alone. All of it is heard in one room over one background noise. What was said when, and by whom,
is known.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from melstate.asr.augment import at_level, coloured_noise
from melstate.asr.diarization_error import Segment
from melstate.asr.scoring import words
from melstate.recipes.data.recordings import is_digit_test, read_digits, read_speechocean
from melstate.recipes.data.waveforms import Waveform, load_waveforms

RATE = 16000
LEVEL = -26.0  # dBFS of every clip
SCENE = 600.0  # seconds until another cast speaks
CAST = 4
MOST_WORDS = 8
PERIOD = 1 << 17  # samples after which the noise repeats


class Stretch(NamedTuple):
    """A stretch without speech, in samples: digital "silence", or "noise" alone, 10 dB over the background."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Conversation:
    """A plan: which clip starts at which sample (of 16 kHz), and where nobody speaks.

    Attributes:
        minutes, seed: what it was planned from; the seed also draws the room and the noise.
        clips: ids of recordings. starts: samples, in order.
        turns: number of the turn that each clip is part of.
        stretches: the long pauses.
    """

    minutes: float
    seed: int
    clips: tuple[str, ...]
    starts: tuple[int, ...]
    turns: tuple[int, ...]
    stretches: tuple[Stretch, ...]

    def save(self, path: str | Path) -> None:
        """As a compressed .npz of a few kilobytes an hour."""
        names = sorted(set(self.clips))
        number = {name: n for n, name in enumerate(names)}
        kept: dict[str, Any] = {
            "about": np.array([self.minutes, self.seed]),
            "names": np.array(names),
            "clips": np.array([number[clip] for clip in self.clips], np.uint16),
            "starts": np.array(self.starts, np.uint32),
            "turns": np.array(self.turns, np.uint16),
            "kinds": np.array([stretch.kind for stretch in self.stretches], "U7"),
            "bounds": np.array([stretch[1:] for stretch in self.stretches], np.uint32).reshape(-1, 2),
        }
        np.savez_compressed(path, **kept)

    @classmethod
    def load(cls, path: str | Path) -> Conversation:
        with np.load(path, allow_pickle=False) as arrays:
            minutes, seed = arrays["about"].tolist()
            names = arrays["names"].tolist()
            stretches = zip(arrays["kinds"].tolist(), arrays["bounds"].tolist(), strict=True)
            return cls(
                minutes,
                int(seed),
                tuple(names[n] for n in arrays["clips"]),
                tuple(arrays["starts"].tolist()),
                tuple(arrays["turns"].tolist()),
                tuple(Stretch(kind, *bounds) for kind, bounds in stretches),
            )


def clips_to_join(data: str | Path, cache: str | Path) -> dict[str, Waveform]:
    """speechocean762's dev clips of at most eight words and the digits' test clips, by id, at 16 kHz.

    Args:
        data: the folder that holds speechocean762/ and digits/.
    """
    dev = read_speechocean(Path(data) / "speechocean762", "dev").recordings
    digits = read_digits(Path(data) / "digits").recordings
    chosen = [r for r in dev if 0 < len(words(r.text)) <= MOST_WORDS] + [r for r in digits if is_digit_test(r)]
    waveforms, _ = load_waveforms(chosen, RATE, cache)
    return {waveform.recording.id: waveform for waveform in waveforms}


def plan(clips: dict[str, Waveform], minutes: float, seed: int) -> Conversation:
    """Draw a conversation of at least `minutes`, the same for the same clips and seed in every Python.

    Speakers with one-word clips say one to eight of them a turn; the others say one clip a turn. The next turn is the
    same speaker's with probability 0.2. One turn in fifty is followed by 10 to 60 s of silence, one by 10 to 30 s of
    noise.
    """
    number = random.Random(seed).random  # random() alone is the same in every Python

    def between(low: float, high: float) -> float:
        return low + (high - low) * number()

    def pick(items: Sequence[Any]) -> Any:
        return items[int(number() * len(items))]

    voices: dict[str, list[str]] = {}
    for name in sorted(clips):
        voices.setdefault(clips[name].recording.speaker, []).append(name)
    if len(voices) < CAST:
        raise ValueError(f"conversations need clips of {CAST} speakers or more, got {len(voices)}")
    chosen: list[str] = []
    starts: list[int] = []
    turns: list[int] = []
    stretches: list[Stretch] = []
    now, scene_end, turn, cast, speaker = 0.5, 0.0, 0, [""], ""
    while now < 60 * minutes:
        if now >= scene_end:
            rest, cast = sorted(voices), []
            while len(cast) < CAST:
                cast.append(rest.pop(int(number() * len(rest))))
            scene_end, speaker = now + SCENE, pick(cast)
        elif number() > 0.2:
            speaker = pick([other for other in cast if other != speaker])
        short = all(len(words(clips[name].recording.text)) == 1 for name in voices[speaker])
        for _ in range(1 + int(number() * MOST_WORDS) if short else 1):
            name = pick(voices[speaker])
            chosen.append(name)
            starts.append(round(now * RATE))
            turns.append(turn)
            now = (starts[-1] + len(clips[name].speech)) / RATE + (between(0.0, 0.15) if short else 0.0)
        turn += 1
        now += between(0.1, 2.0)
        draw = number()
        if draw < 0.04:
            kind, longest = ("silence", 60.0) if draw < 0.02 else ("noise", 30.0)
            # Half a second of background before and after, for the room to die away.
            end = now + 0.5 + between(10.0, longest)
            stretches.append(Stretch(kind, round((now + 0.5) * RATE), round(end * RATE)))
            now = end + 0.5
    return Conversation(minutes, seed, tuple(chosen), tuple(starts), tuple(turns), tuple(stretches))


class SaidWord(NamedTuple):
    """What scoring compares: see melstate.asr.speaker_scoring.SpokenWord."""

    text: str
    start: float
    end: float
    speaker: str


def said(conversation: Conversation, clips: dict[str, Waveform]) -> list[SaidWord]:
    """The reference, in order. Inside a clip of several words its time is shared out by their letters."""
    spoken = []
    for name, start in zip(conversation.clips, conversation.starts, strict=True):
        waveform = clips[name]
        texts = words(waveform.recording.text)
        edges = np.cumsum([0, *(len(text) for text in texts)]) / sum(map(len, texts))
        times = (start + edges * len(waveform.speech)) / RATE
        for text, begin, end in zip(texts, times, times[1:], strict=False):
            spoken.append(SaidWord(text, float(begin), float(end), waveform.recording.speaker))
    return spoken


def turn_segments(conversation: Conversation, clips: dict[str, Waveform]) -> list[Segment]:
    """Who speaks from when to when, one segment a turn."""
    segments: dict[int, Segment] = {}
    for name, start, turn in zip(conversation.clips, conversation.starts, conversation.turns, strict=True):
        end = (start + len(clips[name].speech)) / RATE
        first = segments[turn].start if turn in segments else start / RATE
        segments[turn] = Segment(first, end, clips[name].recording.speaker)
    return list(segments.values())


def samples(conversation: Conversation, clips: dict[str, Waveform]) -> int:
    """Length of the audio: half a second after the last clip or stretch."""
    last = conversation.starts[-1] + len(clips[conversation.clips[-1]].speech)
    return max([last, *(stretch.end for stretch in conversation.stretches)]) + RATE // 2


class _Surroundings:
    """Room and noise of a conversation, drawn from its seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        length = int(rng.uniform(0.15, 0.4) * RATE)
        tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
        tail *= 10 ** (-rng.uniform(6, 15) / 20) / np.sqrt(np.square(tail).sum())
        tail[0] = 1.0
        self.tail = tail.astype(np.float32)
        self.noise = coloured_noise(rng, PERIOD, rng.uniform(0.5, 1.5))
        self.gain = np.float32(10 ** ((LEVEL - rng.uniform(15, 25)) / 20))

    def in_room(self, speech: np.ndarray) -> np.ndarray:
        """Levelled, with the room's tail after it: (samples + tail - 1,)."""
        from scipy.signal import oaconvolve

        return oaconvolve(at_level(speech.astype(np.float32) / 32768.0, LEVEL), self.tail).astype(np.float32)

    def background(self, start: int, end: int) -> np.ndarray:
        return self.noise[np.arange(start, end) % PERIOD] * self.gain


def blocks(conversation: Conversation, clips: dict[str, Waveform], seconds: float = 5.0) -> Iterator[np.ndarray]:
    """The audio at 16 kHz, float32, block by block: no more than a few clips are ever held.

    The samples do not depend on the size of the blocks.
    """
    around = _Surroundings(conversation.seed)
    size, total = max(1, round(seconds * RATE)), samples(conversation, clips)
    upcoming = iter(zip(conversation.starts, conversation.clips, strict=True))
    following = next(upcoming, None)
    playing: list[tuple[int, np.ndarray]] = []
    for start in range(0, total, size):
        end = min(start + size, total)
        block = around.background(start, end)
        while following is not None and following[0] < end:
            playing.append((following[0], around.in_room(clips[following[1]].speech)))
            following = next(upcoming, None)
        for begin, audio in playing:
            first, last = max(begin, start), min(begin + len(audio), end)
            if first < last:
                block[first - start : last - start] += audio[first - begin : last - begin]
        playing = [(begin, audio) for begin, audio in playing if begin + len(audio) > end]
        for stretch in conversation.stretches:
            inside = slice(max(0, stretch.start - start), max(0, stretch.end - start))
            block[inside] *= 0.0 if stretch.kind == "silence" else np.float32(10**0.5)
        yield np.clip(block, -1.0, 1.0)


def write_audio(conversation: Conversation, clips: dict[str, Waveform], path: str | Path) -> None:
    """The conversation as a file, written block by block."""
    import soundfile

    with soundfile.SoundFile(str(path), "w", RATE, 1, "PCM_16") as file:
        for block in blocks(conversation, clips):
            file.write(block)


def words_in_pauses(spoken: Sequence[Any], conversation: Conversation) -> tuple[int, float]:
    """(words whose middle lies in a long pause, minutes of long pauses): what a recogniser invented there."""
    bounds = np.array([stretch[1:] for stretch in conversation.stretches], np.float64).reshape(-1, 2) / RATE
    middles = np.array([(word.start + word.end) / 2 for word in spoken])
    inside = ((middles[:, None] > bounds[:, 0]) & (middles[:, None] < bounds[:, 1])).any(axis=1)
    return int(inside.sum()), float((bounds[:, 1] - bounds[:, 0]).sum() / 60)
