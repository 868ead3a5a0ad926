"""Training batches by number: vocoder segments, and acoustic utterances bucketed by length."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np
import torch

from melstate.recipes.data.features import Features
from melstate.recipes.data.steps import generator
from melstate.tts.acoustic import Batch
from melstate.tts.text import symbols
from melstate.vocoders.vocoder import VocoderBatch


class Clip(NamedTuple):
    """One utterance ready to train on; `phones` is empty for vocoders, `durations` None before alignment.

    `bandwidth` is as in VocoderBatch.
    """

    id: str
    speaker: int
    features: Features
    phones: tuple[int, ...] = ()
    durations: np.ndarray | None = None
    bandwidth: float = inf


def bandwidths(clips: Sequence[Clip]) -> torch.Tensor | None:
    """(B,) Hz; None where all clips are complete."""
    if all(clip.bandwidth == inf for clip in clips):
        return None
    return torch.tensor([clip.bandwidth for clip in clips], dtype=torch.float32)


def hertz(log_f0: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """F0 in Hz, 0 where unvoiced."""
    return np.where(voiced > 0.5, np.exp(log_f0), 0.0).astype(np.float32)


class SegmentBatches:
    """Random segments of `frames` frames, every frame of the corpus equally likely."""

    def __init__(self, clips: Sequence[Clip], hop: int, *, batch_size: int, frames: int, seed: int) -> None:
        self.clips = [clip for clip in clips if clip.features.mel.shape[1] >= frames]
        if not self.clips:
            raise ValueError(f"no clip has {frames} frames; use shorter segments")
        self.hop, self.batch_size, self.frames, self.seed = hop, batch_size, frames, seed
        starts = np.array([clip.features.mel.shape[1] - frames + 1 for clip in self.clips])
        self.ends = np.cumsum(starts)

    def batch(self, index: int) -> VocoderBatch:
        mels, audio, f0, clips = [], [], [], []
        for pick in generator(self.seed, index).integers(self.ends[-1], size=self.batch_size):
            number = int(np.searchsorted(self.ends, pick, side="right"))
            clips.append(self.clips[number])
            features = clips[-1].features
            start = int(self.ends[number] - pick - 1)
            stop = start + self.frames
            mels.append(features.mel[:, start:stop])
            audio.append(features.audio[start * self.hop : stop * self.hop].astype(np.float32) / 32767.0)
            f0.append(hertz(features.log_f0[start:stop], features.voiced[start:stop]))
        mel, sound, pitch = (torch.from_numpy(np.stack(x)) for x in (mels, audio, f0))
        return VocoderBatch(mel, sound, pitch, bandwidths(clips))


def join(first: Clip, second: Clip) -> Clip:
    """Two clips spoken as one sentence, so that training sees long ones. The seam's edge silences go to the
    punctuation before it."""
    a, b = first.features, second.features
    features = Features(*(np.concatenate([getattr(a, name), getattr(b, name)], axis=-1) for name in Features._fields))
    durations = None
    if first.durations is not None and second.durations is not None:
        head, tail = first.durations[:-1].copy(), second.durations[1:]
        head[-1] += first.durations[-1] + second.durations[0]
        durations = np.concatenate([head, tail])
    return Clip(f"{first.id}+{second.id}", first.speaker, features, first.phones[:-1] + second.phones[1:], durations)


def collate(clips: Sequence[Clip]) -> Batch:
    """Pad to the longest."""

    def padded(rows: Sequence[np.ndarray], dtype: type) -> torch.Tensor:
        width = max(row.shape[-1] for row in rows)
        return torch.from_numpy(
            np.stack([np.pad(r, [(0, 0)] * (r.ndim - 1) + [(0, width - r.shape[-1])]).astype(dtype) for r in rows])
        )

    durations = [clip.durations for clip in clips]
    return Batch(
        phones=padded([np.array(clip.phones) for clip in clips], np.int64),
        phone_lengths=torch.tensor([len(clip.phones) for clip in clips]),
        mels=padded([clip.features.mel for clip in clips], np.float32),
        mel_lengths=torch.tensor([clip.features.mel.shape[1] for clip in clips]),
        log_f0=padded([clip.features.log_f0 for clip in clips], np.float32),
        voiced=padded([clip.features.voiced for clip in clips], np.float32),
        durations=None if durations[0] is None else padded([d for d in durations if d is not None], np.int64),
        speakers=torch.tensor([clip.speaker for clip in clips]),
        ids=tuple(clip.id for clip in clips),
    )


class UtteranceBatches:
    """Whole utterances in batches of similar length; each epoch is a new shuffle.

    Args:
        joined: probability that a clip is lengthened by another of the same speaker.
    """

    def __init__(self, clips: Sequence[Clip], *, batch_size: int, seed: int, joined: float = 0.0) -> None:
        if len(clips) < batch_size:
            raise ValueError(f"{len(clips)} clips cannot fill a batch of {batch_size}; lower data.batch_size")
        self.clips, self.batch_size, self.seed, self.joined = list(clips), batch_size, seed, joined
        self.batches_per_epoch = len(clips) // batch_size
        self._epoch: tuple[int, list[list[tuple[int, int | None]]]] = (-1, [])

    def _plan(self, epoch: int) -> list[list[tuple[int, int | None]]]:
        """Clip numbers (and the number of the clip joined on, if any) of every batch of the epoch."""
        rng = generator(self.seed, epoch)
        partners: list[int | None] = [None] * len(self.clips)
        for number in np.flatnonzero(rng.random(len(self.clips)) < self.joined):
            other = int(rng.integers(len(self.clips)))
            if self.clips[other].speaker == self.clips[number].speaker:
                partners[number] = other
        frames = np.array([clip.features.mel.shape[1] for clip in self.clips], dtype=float)
        length = frames + np.array([0.0 if p is None else frames[p] for p in partners])
        # Noise on the sorting key makes other neighbours every epoch at little padding.
        order = np.argsort(length * rng.uniform(0.9, 1.1, len(length)))
        offset = int(rng.integers(len(order) - self.batches_per_epoch * self.batch_size + 1))
        starts = offset + self.batch_size * rng.permutation(self.batches_per_epoch)
        return [[(int(i), partners[i]) for i in order[start : start + self.batch_size]] for start in starts]

    def batch(self, index: int) -> Batch:
        epoch, within = divmod(index, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._plan(epoch))
        picked = self._epoch[1][within]
        return collate([self.clips[i] if j is None else join(self.clips[i], self.clips[j]) for i, j in picked])


def join_sentences(sentences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Symbols of several sentences as one utterance: one BEGIN, one END."""
    inner = [symbol for sentence in sentences for symbol in sentence[1:-1]]
    return (symbols.ID[symbols.BEGIN], *inner, symbols.ID[symbols.END])
