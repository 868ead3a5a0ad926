"""Batches of short stretches of many speakers, to train a speaker encoder on.

Every clip is heard at three speeds, and each speed of a voice counts as a person of its own (Yamamoto et al.,
Interspeech 2019): three times as many voices to tell apart. Noise and reverberation are laid over the log-mels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from melstate.recipes.data.module import Items, warn_of
from melstate.recipes.data.recordings import Recording, read_layout
from melstate.recipes.data.steps import generator, step_loader
from melstate.vocoders import wav
from melstate.vocoders.mel import MelConfig, log_mel

VERSION = 1


class SpeakerClip(NamedTuple):
    """mel: (n_mels, T) float16 without edge silence; speaker: class number."""

    id: str
    speaker: int
    mel: np.ndarray


class SpeakerBatch(NamedTuple):
    """mels (B, n_mels, T) and speakers (B,) class numbers."""

    mels: Tensor
    speakers: Tensor


def spoken(mel: np.ndarray, below: float = 3.5) -> np.ndarray:
    """The frames between the first and the last that come within `below` (natural log) of the loudest."""
    level = mel.astype(np.float32).mean(axis=0)
    loud = np.flatnonzero(level > np.quantile(level, 0.95) - below)
    return mel[:, loud[0] : loud[-1] + 1]


class SpeakerMels:
    """Log-mels of recordings at some speed, computed once and kept in one file a corpus and speed."""

    def __init__(self, cache: str | Path, mel: MelConfig) -> None:
        self.cache, self.mel = Path(cache), mel

    def of(self, recordings: Sequence[Recording], speed: float) -> tuple[dict[str, np.ndarray], list[str]]:
        """(mel by clip id, problems)."""
        listed = [[r.id, str(r.path), r.speaker] for r in recordings]
        about = json.dumps([VERSION, self.mel.to_dict(), speed, listed], sort_keys=True)
        path = self.cache / f"speakers-{hashlib.sha256(about.encode()).hexdigest()[:12]}.npz"
        if not path.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            with part.open("wb") as stream:
                np.savez(stream, **self._compute(recordings, speed))
            part.replace(path)
        with np.load(path, allow_pickle=False) as arrays:
            mels = {name: arrays[name] for name in arrays.files}
        return mels, [f"{r.path}: not readable or silent" for r in recordings if r.id not in mels]

    def _compute(self, recordings: Sequence[Recording], speed: float) -> dict[str, Any]:
        mels = {}
        for recording in recordings:
            try:
                audio, rate = wav.read(recording.path)
                # Played faster: the same samples are said to come at a higher rate.
                audio = wav.resample(audio, round(rate * speed), self.mel.sample_rate)
                mel = log_mel(torch.from_numpy(audio), self.mel).numpy()
            except (ValueError, OSError):
                continue
            if mel.shape[1] and mel.max() > np.log(self.mel.floor) + 2:
                mels[recording.id] = spoken(mel).astype(np.float16)
        return mels


def disturb(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise and reverberation on a (n_mels, T) log-mel, each on half of the calls."""
    bands, frames = mel.shape
    power = np.exp(2 * mel.astype(np.float32))
    if rng.random() < 0.5:
        decay = np.exp(-np.arange(30) * 0.01 * 13.8 / rng.uniform(0.15, 0.6))  # 60 dB in 0.15 to 0.6 s
        tail = rng.uniform(0.05, 0.4) * decay[1:] / decay[1:].sum()
        kernel = np.concatenate([[1.0], tail])
        power = np.stack([np.convolve(row, kernel)[:frames] for row in power])
    if rng.random() < 0.5:
        colour = np.cumsum(rng.normal(0, 0.4, bands))
        noise = np.exp(colour - colour.mean())[:, None] * rng.gamma(3.0, 1 / 3.0, (bands, frames))
        noise *= power.mean() / noise.mean() * 10 ** (-rng.uniform(0, 25) / 10)
        power = power + noise
    return (0.5 * np.log(power)).astype(np.float32)


class SpeakerBatches:
    """Stretches of one length a batch, each of a speaker drawn evenly; short clips of a voice are joined."""

    def __init__(
        self, clips: Sequence[SpeakerClip], *, batch_size: int, least: int, most: int, seed: int, disturbed: bool = True
    ) -> None:
        if not clips:
            raise ValueError("no clips to draw speakers from")
        if not 0 < least <= most:
            raise ValueError(f"stretches need 0 < least <= most frames, got {least} and {most}")
        self.batch_size, self.least, self.most, self.seed, self.disturbed = batch_size, least, most, seed, disturbed
        voices: dict[int, list[np.ndarray]] = {}
        for clip in clips:
            voices.setdefault(clip.speaker, []).append(clip.mel)
        self.voices = sorted(voices.items())

    def batch(self, index: int) -> SpeakerBatch:
        rng = generator(self.seed, index)
        frames = int(rng.integers(self.least, self.most + 1))
        picks = rng.integers(len(self.voices), size=self.batch_size)
        mels = [self._stretch(self.voices[pick][1], frames, rng) for pick in picks]
        if self.disturbed:
            mels = [disturb(mel, rng) for mel in mels]
        speakers = torch.tensor([self.voices[pick][0] for pick in picks])
        return SpeakerBatch(torch.from_numpy(np.stack(mels).astype(np.float32)), speakers)

    @staticmethod
    def _stretch(clips: list[np.ndarray], frames: int, rng: np.random.Generator) -> np.ndarray:
        joined = clips[rng.integers(len(clips))]
        while joined.shape[1] < frames:
            joined = np.concatenate([joined, clips[rng.integers(len(clips))]], axis=1)
        start = int(rng.integers(joined.shape[1] - frames + 1))
        return joined[:, start : start + frames]


class SpeakerData(pl.LightningDataModule):
    """Training voices at several speeds; development voices at one, none of which is trained on.

    Args:
        train, dev: corpora for `read_layout`.
        mel: the mel contract as a mapping.
        cache: folder for log-mels.
        batch_size: stretches a batch.
        least, most: seconds of a training stretch.
        dev_seconds: of a development stretch; dev_batches of them, always the same.
        speeds: each makes every training voice another one.
    """

    def __init__(
        self,
        train: Sequence[Mapping[str, Any]],
        dev: Sequence[Mapping[str, Any]],
        mel: Mapping[str, Any],
        cache: str,
        batch_size: int = 64,
        least: float = 0.6,
        most: float = 2.4,
        dev_seconds: float = 1.5,
        dev_batches: int = 8,
        speeds: Sequence[float] = (1.0, 0.9, 1.1),
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.corpora, self.mel = {"train": list(train), "dev": list(dev)}, MelConfig.from_dict(dict(mel))
        self.mels, self.batch_size, self.speeds = SpeakerMels(cache, self.mel), batch_size, tuple(speeds)
        per_second = self.mel.sample_rate / self.mel.hop
        self.least, self.most, self.dev_frames = (round(s * per_second) for s in (least, most, dev_seconds))
        self.dev_batches, self.seed, self.workers = dev_batches, seed, workers
        self.batches_seen = 0
        self.train: list[SpeakerClip] = []
        self.dev: list[SpeakerClip] = []

    def prepare_data(self) -> None:
        self._clips("train", self.speeds)
        self._clips("dev", (1.0,))

    def setup(self, stage: str | None = None) -> None:
        if not self.train:
            self.train, self.dev = self._clips("train", self.speeds), self._clips("dev", (1.0,))

    def _clips(self, part: str, speeds: Sequence[float]) -> list[SpeakerClip]:
        clips: list[SpeakerClip] = []
        numbers: dict[tuple[str, float], int] = {}
        for corpus in self.corpora[part]:
            found = read_layout(corpus)
            for speed in speeds:
                mels, unreadable = self.mels.of(found.recordings, speed)
                warn_of(f"{corpus['folder']}: recordings left out", (*found.problems, *unreadable))
                for recording in found.recordings:
                    if recording.id in mels:
                        number = numbers.setdefault((recording.speaker, speed), len(numbers))
                        clips.append(SpeakerClip(recording.id, number, mels[recording.id]))
        return clips

    def source(self) -> SpeakerBatches:
        return SpeakerBatches(self.train, batch_size=self.batch_size, least=self.least, most=self.most, seed=self.seed)

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return step_loader(self.source(), start=self.batches_seen, rank=rank, world=world, workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        frames = self.dev_frames
        source = SpeakerBatches(
            self.dev, batch_size=self.batch_size, least=frames, most=frames, seed=self.seed, disturbed=False
        )
        return DataLoader(Items([source.batch(index) for index in range(self.dev_batches)]), batch_size=None)

    def state_dict(self) -> dict[str, int]:
        return {"batches_seen": self.batches_seen}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches_seen = state_dict["batches_seen"]
