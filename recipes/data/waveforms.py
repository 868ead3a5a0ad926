"""All waveforms of a recognition corpus: 16-bit, one rate, decoded once into one file, read where they are needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melstate.asr.augment import level
from melstate.recipes.data.recordings import Recording
from melstate.vocoders import wav
from melstate.vocoders.checkpoint import write_atomic

VERSION = 2
QUIET = 35.0  # dB under the speech level that count as silence at the edges


class Waveform(NamedTuple):
    """A recording's (samples,) int16 audio, and where its speech starts and stops, in samples."""

    recording: Recording
    audio: np.ndarray
    start: int
    stop: int

    @property
    def speech(self) -> np.ndarray:
        return self.audio[self.start : self.stop]


def load_waveforms(
    recordings: Sequence[Recording], sample_rate: int, cache: str | Path, max_seconds: float = 40.0
) -> tuple[list[Waveform], list[str]]:
    """Waveforms in the order of the recordings, and a line for every recording that was left out.

    Args:
        cache: folder for one file of all samples; another set of recordings or another rate makes another.
    """
    names = [[r.id, str(r.path), r.path.stat().st_size] for r in recordings]
    key = json.dumps([VERSION, sample_rate, max_seconds, names])
    stem = Path(cache) / f"waveforms-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    samples, index = stem.with_suffix(".pcm"), stem.with_suffix(".json")
    if not (samples.is_file() and index.is_file()):
        _decode(recordings, sample_rate, max_seconds, samples, index)
    empty = not samples.stat().st_size
    everything = np.zeros(0, np.int16) if empty else np.memmap(samples, "<i2", mode="r")
    described = json.loads(index.read_text("utf-8"))
    by_id = {r.id: r for r in recordings}
    clips = [Waveform(by_id[name], everything[begin:end], *bounds) for name, begin, end, bounds in described["clips"]]
    return clips, described["problems"]


def _decode(recordings: Sequence[Recording], sample_rate: int, max_seconds: float, samples: Path, index: Path) -> None:
    """One clip at a time: a thousand hours need no more memory than one."""
    samples.parent.mkdir(parents=True, exist_ok=True)
    clips: list[tuple[str, int, int, tuple[int, int]]] = []
    problems, end = [], 0
    part = samples.with_name(f".{samples.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            for recording in recordings:
                try:
                    audio, _ = wav.read(recording.path, sample_rate)
                except (ValueError, OSError) as error:
                    problems.append(str(error))
                    continue
                if len(audio) > max_seconds * sample_rate:
                    problems.append(f"{recording.path}: {len(audio) / sample_rate:.1f} s, more than {max_seconds:g} s")
                    continue
                pcm = wav.to_int16(audio)
                stream.write(pcm.tobytes())
                clips.append((recording.id, end, end + len(pcm), speech_bounds(pcm, sample_rate)))
                end += len(pcm)
        part.replace(samples)
    finally:
        part.unlink(missing_ok=True)
    write_atomic(index, json.dumps({"clips": clips, "problems": problems}).encode())


def speech_bounds(audio: np.ndarray, sample_rate: int, margin: float = 0.1) -> tuple[int, int]:
    """Samples where speech starts and stops, `margin` seconds wider; the whole clip if nothing stands out."""
    size = sample_rate // 50
    pieces = audio[: len(audio) // size * size].astype(np.float32).reshape(-1, size) / 32768.0
    if not len(pieces):
        return 0, len(audio)
    powers = np.mean(np.square(pieces), axis=1)
    loud = np.flatnonzero(powers > level(pieces.ravel()) * 10 ** (-QUIET / 10) + 1e-8)
    if not len(loud):
        return 0, len(audio)
    wide = int(margin * sample_rate)
    return max(0, int(loud[0]) * size - wide), min(len(audio), int(loud[-1] + 1) * size + wide)
