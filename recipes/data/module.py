"""Lightning data modules: corpora on disk → training and development batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from melstate.recipes.data.batches import (
    Clip,
    SegmentBatches,
    UtteranceBatches,
    bandwidths,
    collate,
    hertz,
    join_sentences,
)
from melstate.recipes.data.corpus import Utterance
from melstate.recipes.data.features import FeatureCache, FeatureConfig
from melstate.recipes.data.sources import Source, Split
from melstate.recipes.data.steps import BatchSource, step_loader
from melstate.tts.text import FrontEnd
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.vocoder import VocoderBatch


class SpeechData(pl.LightningDataModule):
    """Clips of one or more corpora, split by prompt, with cached features, in memory.

    Args:
        corpora: keyword arguments of `sources.Source`, one mapping a corpus: {folder: …, speaker: …, reader: …, …}.
        corrections: transcripts to replace, text by text as it stands in metadata.csv.
        cache: folder for features.
        batch_size: utterances (or segments) a batch and process.
        features: keyword arguments of FeatureConfig (mel as a mapping).
        dev_prompts: prompts held out of each corpus.
        seed: of the split and of the batches.
        workers: loader processes; prepare_workers: feature-extraction processes.
    """

    def __init__(
        self,
        corpora: Sequence[Mapping[str, Any]],
        cache: str,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
        corrections: Mapping[str, str] | None = None,
        dev_prompts: int = 40,
        seed: int = 0,
        workers: int = 0,
        prepare_workers: int = 2,
    ) -> None:
        super().__init__()
        options = dict(features or {})
        options["mel"] = MelConfig(**options.get("mel", {}))
        self.features = FeatureConfig(**options)
        self.cache = FeatureCache(cache, self.features)
        self.sources = [Source(**corpus) for corpus in corpora]
        self.corrections = dict(corrections or {})
        self.batch_size, self.dev_prompts, self.seed = batch_size, dev_prompts, seed
        self.workers, self.prepare_workers = workers, prepare_workers
        self.batches_seen = 0
        self.train: list[Clip] = []
        self.dev: list[Clip] = []

    @cached_property
    def splits(self) -> list[Split]:
        """What each corpus holds; unreadable rows become one warning each corpus."""
        splits = [source.read(self.dev_prompts, self.seed, self.corrections) for source in self.sources]
        for source, split in zip(self.sources, splits, strict=True):
            warn_of(f"{source.folder}: rows left out", split.problems)
        return splits

    @property
    def speakers(self) -> list[str]:
        """Names; their order, that of the corpora and by name inside each, is the speaker index of the batches."""
        return list(dict.fromkeys(name for s in self.splits for name in sorted({u.speaker for u in s.train + s.dev})))

    def utterances(self) -> tuple[list[Utterance], list[Utterance]]:
        """(train, dev) of all corpora."""
        return [u for split in self.splits for u in split.train], [u for split in self.splits for u in split.dev]

    def prepare_data(self) -> None:
        train, dev = self.utterances()
        once = list(dict.fromkeys(train + dev))  # a repeated corpus is prepared once
        warn_of("clips left out", self.cache.prepare(once, self.prepare_workers))

    def setup(self, stage: str | None = None) -> None:
        if not self.train:
            train, dev = self.utterances()
            self.train, self.dev = self.load(train), self.load(dev)

    def load(self, utterances: Sequence[Utterance]) -> list[Clip]:
        """Clips whose features are cached."""
        index = {speaker: number for number, speaker in enumerate(self.speakers)}
        read: dict[Utterance, Clip] = {}
        for u in utterances:
            if u not in read and self.cache.path(u).is_file():
                read[u] = Clip(u.id, index[u.speaker], self.cache.load(u), bandwidth=u.bandwidth)
        return [read[u] for u in utterances if u in read]

    def source(self) -> BatchSource:
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return step_loader(self.source(), start=self.batches_seen, rank=rank, world=world, workers=self.workers)

    def state_dict(self) -> dict[str, int]:
        return {"batches_seen": self.batches_seen}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches_seen = state_dict["batches_seen"]


class Items(Dataset):
    """A list as a dataset."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def warn_of(what: str, problems: Sequence[str]) -> None:
    """One warning for all problems, the first ten by name."""
    if problems:
        more = f" … and {len(problems) - 10} more" if len(problems) > 10 else ""
        warnings.warn(f"{len(problems)} {what}: " + "; ".join(problems[:10]) + more, stacklevel=2)


class VocoderData(SpeechData):
    """Segments to train on, whole development clips one by one.

    Args:
        frames: segment length.
        predicted_mels: folder of <id>.npy log-mels (n_mels, T) of an acoustic model, used instead of the recordings'.
        recorded_too: beside them, not instead.
    """

    def __init__(
        self,
        *args: Any,
        frames: int = 48,
        predicted_mels: str | None = None,
        recorded_too: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.frames, self.predicted_mels, self.recorded_too = frames, predicted_mels, recorded_too

    def load(self, utterances: Sequence[Utterance]) -> list[Clip]:
        clips = super().load(utterances)
        if self.predicted_mels is None:
            return clips
        predicted = [self._with_predicted_mel(clip, Path(self.predicted_mels) / f"{clip.id}.npy") for clip in clips]
        return [*clips, *predicted] if self.recorded_too else predicted

    @staticmethod
    def _with_predicted_mel(clip: Clip, path: Path) -> Clip:
        mel = np.load(path, allow_pickle=False).astype(np.float32)
        if mel.shape != clip.features.mel.shape:
            raise ValueError(
                f"{path}: mel of shape {mel.shape}, the recording's is {clip.features.mel.shape}; write them anew"
            )
        return clip._replace(features=clip.features._replace(mel=mel))

    def source(self) -> SegmentBatches:
        hop = self.features.mel.hop
        return SegmentBatches(self.train, hop, batch_size=self.batch_size, frames=self.frames, seed=self.seed)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Items([whole_clip(clip) for clip in self.dev]), batch_size=None)


def whole_clip(clip: Clip) -> VocoderBatch:
    """A batch of one."""
    features = clip.features
    f0 = hertz(features.log_f0, features.voiced)
    audio = features.audio.astype(np.float32) / 32767.0
    mel, sound, pitch = (torch.from_numpy(x)[None] for x in (features.mel, audio, f0))
    return VocoderBatch(mel, sound, pitch, bandwidths([clip]))


class AcousticData(SpeechData):
    """Utterances with their symbols and, once aligned, durations.

    Args:
        durations: .npz of frames per symbol by utterance id, as melstate.recipes.align writes it.
        joined: probability of training on two clips as one sentence.
        user_lexicon: pronunciations for words the lexicon lacks.
        frames_per_symbol: clips with fewer are left out; states · reduction for a neural HMM.
    """

    def __init__(
        self,
        *args: Any,
        durations: str | None = None,
        joined: float = 0.0,
        user_lexicon: str | None = None,
        frames_per_symbol: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.durations, self.joined, self.user_lexicon = durations, joined, user_lexicon
        self.frames_per_symbol = frames_per_symbol

    def load(self, utterances: Sequence[Utterance]) -> list[Clip]:
        front_end = FrontEnd(user_lexicon=self.user_lexicon)
        texts = {u.id: u.text for u in utterances}
        clips = [
            clip._replace(phones=join_sentences([s.ids for s in front_end.sentences(texts[clip.id])]))
            for clip in super().load(utterances)
        ]
        least = self.frames_per_symbol
        short = [
            f"{clip.id}: {clip.features.mel.shape[1]} frames for {len(clip.phones)} symbols"
            for clip in clips
            if clip.features.mel.shape[1] < least * len(clip.phones)
        ]
        warn_of("clips left out, too short for their text", short)
        clips = [clip for clip in clips if clip.features.mel.shape[1] >= least * len(clip.phones)]
        if self.durations is None:
            return clips
        with np.load(self.durations, allow_pickle=False) as durations:
            missing = [clip.id for clip in clips if clip.id not in durations]
            warn_of("clips left out, not aligned", missing)
            return [self._aligned(clip, durations[clip.id]) for clip in clips if clip.id in durations]

    def _aligned(self, clip: Clip, durations: np.ndarray) -> Clip:
        frames = clip.features.mel.shape[1]
        if len(durations) != len(clip.phones) or durations.sum() != frames:
            raise ValueError(
                f"{self.durations}: '{clip.id}' has {len(durations)} durations over {durations.sum()} frames, the clip "
                f"{len(clip.phones)} symbols over {frames}; align again"
            )
        return clip._replace(durations=durations)

    def source(self) -> UtteranceBatches:
        return UtteranceBatches(self.train, batch_size=self.batch_size, seed=self.seed, joined=self.joined)

    def val_dataloader(self) -> DataLoader:
        clips = sorted(self.dev, key=lambda clip: clip.features.mel.shape[1])
        groups = [clips[i : i + self.batch_size] for i in range(0, len(clips), self.batch_size)]
        return DataLoader(Items([collate(group) for group in groups]), batch_size=None)
