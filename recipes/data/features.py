"""Audio → training features, once, cached on disk: trimmed and levelled audio, log-mel, F0, voicing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from melstate.recipes.data.corpus import Utterance
from melstate.vocoders import wav
from melstate.vocoders.mel import MelConfig, log_mel

VERSION = 1


@dataclass(frozen=True)
class FeatureConfig:
    """How clips become features; a change makes another cache folder.

    Attributes:
        mel: the contract.
        level: dBFS, root mean square that the spoken part of every clip is scaled to (peaks stay under 0.95).
        trim: dB under the loudest frame that count as silence at the edges; None keeps the edges.
        margin: seconds of edge silence to keep.
        f0_min, f0_max: Hz, search range of pYIN.
        max_seconds: longer clips are reported and left out.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    level: float = -23.0
    trim: float | None = 40.0
    margin: float = 0.05
    f0_min: float = 80.0
    f0_max: float = 450.0
    max_seconds: float = 20.0

    def key(self) -> str:
        """Short hash that names the cache folder."""
        text = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Features(NamedTuple):
    """One clip.

    Attributes:
        audio: (T * hop,) int16.
        mel: (n_mels, T) float32.
        log_f0: (T,) float32, natural log of Hz, interpolated through unvoiced stretches.
        voiced: (T,) float32, 1 where voiced.
    """

    audio: np.ndarray
    mel: np.ndarray
    log_f0: np.ndarray
    voiced: np.ndarray


def level_and_trim(audio: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Cut edge silence and scale to the configured level. Raises ValueError on a silent clip."""
    start, stop = spoken_part(audio, config)
    return level(audio[start:stop], config)


def spoken_part(audio: np.ndarray, config: FeatureConfig) -> tuple[int, int]:
    """First sample, and one past the last, that edge silence leaves. Raises ValueError on a silent clip."""
    import librosa

    if np.abs(audio).max() < 1e-4:
        raise ValueError("silent")
    if config.trim is None:
        return 0, len(audio)
    margin = round(config.margin * config.mel.sample_rate)
    _, (start, stop) = librosa.effects.trim(audio, top_db=config.trim, frame_length=1024, hop_length=256)
    return max(0, int(start) - margin), min(len(audio), int(stop) + margin)


def level(audio: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Scale to the configured level."""
    import librosa

    power = librosa.feature.rms(y=audio, frame_length=1024, hop_length=256)[0] ** 2
    spoken = power[power > power.max() * 1e-3].mean()
    gain = min(10 ** (config.level / 20) / np.sqrt(spoken), 0.95 / np.abs(audio).max())
    return audio * gain


def pitch(audio: np.ndarray, config: FeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """(log_f0, voiced) per mel frame by pYIN (Mauch & Dixon 2014); frame t is centred at sample t * hop + hop / 2."""
    import librosa

    mel = config.mel
    frames = len(audio) // mel.hop
    # librosa centres frame t at t * hop; dropping half a hop puts it at the mel frame's centre.
    f0, voiced, _ = librosa.pyin(
        audio[mel.hop // 2 :],
        sr=mel.sample_rate,
        fmin=config.f0_min,
        fmax=config.f0_max,
        frame_length=1024 if mel.sample_rate < 32000 else 2048,
        hop_length=mel.hop,
    )
    f0, voiced = (np.pad(x, (0, max(0, frames - len(x))), mode="edge")[:frames] for x in (f0, voiced))
    if not voiced.any():
        return np.full(frames, np.log(np.sqrt(config.f0_min * config.f0_max)), np.float32), np.zeros(frames, np.float32)
    where = np.flatnonzero(voiced)
    log_f0 = np.interp(np.arange(frames), where, np.log(f0[where]))
    return log_f0.astype(np.float32), voiced.astype(np.float32)


def extract(path: str | Path, config: FeatureConfig) -> Features:
    """Features of one audio file. Raises ValueError naming what is wrong with it."""
    audio, _ = wav.read(path, config.mel.sample_rate)
    seconds = len(audio) / config.mel.sample_rate
    if seconds > config.max_seconds:
        raise ValueError(f"{path}: {seconds:.1f} s long, at most {config.max_seconds:g} s are trained on")
    try:
        audio = level_and_trim(audio, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    frames = len(audio) // config.mel.hop
    if frames < 8:
        raise ValueError(f"{path}: {frames} frames of speech, at least 8 are needed")
    return analyse(audio, config)


def analyse(audio: np.ndarray, config: FeatureConfig) -> Features:
    """Features of all whole frames of audio that is trimmed and levelled."""
    samples = wav.to_int16(audio[: len(audio) // config.mel.hop * config.mel.hop])
    mel = log_mel(torch.from_numpy(samples.astype(np.float32) / 32767.0), config.mel).numpy()
    log_f0, voiced = pitch(audio[: len(samples)], config)
    return Features(samples, mel, log_f0, voiced)


def _extract_to(job: tuple[str, str, FeatureConfig]) -> str | None:
    """Worker: cache one clip; the problem as text if it cannot be used."""
    source, target, config = job
    torch.set_num_threads(1)
    try:
        features = extract(source, config)
    except (ValueError, OSError) as error:
        return str(error)
    part = f"{target}.{os.getpid()}.part"
    with open(part, "wb") as stream:
        np.savez(stream, **features._asdict())
    os.replace(part, target)
    return None


class FeatureCache:
    """A folder with one .npz a clip; clips not there yet are computed by `prepare`."""

    def __init__(self, folder: str | Path, config: FeatureConfig) -> None:
        self.config = config
        self.folder = Path(folder) / config.key()

    def path(self, utterance: Utterance) -> Path:
        return self.folder / f"{utterance.speaker}--{utterance.id}.npz"

    def prepare(self, utterances: Sequence[Utterance], workers: int = 1) -> list[str]:
        """Compute what is missing, with a progress bar on stderr; returns the problems, one line a clip."""
        from rich.console import Console
        from rich.progress import track

        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "features.json").write_text(json.dumps(asdict(self.config), indent=1))
        jobs = [(str(u.audio), str(self.path(u)), self.config) for u in utterances if not self.path(u).is_file()]
        if not jobs:
            return []
        console = Console(stderr=True)
        if workers <= 1:
            results: Iterable[str | None] = map(_extract_to, jobs)
            return [p for p in track(results, "features", len(jobs), console=console) if p]
        with ProcessPoolExecutor(workers) as pool:
            results = pool.map(_extract_to, jobs, chunksize=4)
            return [p for p in track(results, "features", len(jobs), console=console) if p]

    def load(self, utterance: Utterance) -> Features:
        with np.load(self.path(utterance), allow_pickle=False) as arrays:
            return Features(**{name: arrays[name] for name in Features._fields})
