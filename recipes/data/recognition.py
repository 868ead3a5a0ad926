"""Lightning data module for recognition: several corpora in memory, mixed by weight, and development sets by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from melstate.asr.features import SPEECH, perturbed_log_mel
from melstate.asr.model import SpeechBatch
from melstate.asr.tokens import END, Tokens, normalize_transcript, speaker_token
from melstate.recipes.data import recordings as readers
from melstate.recipes.data.clips import Clip, load_times, place_words
from melstate.recipes.data.corpus import Utterance
from melstate.recipes.data.module import Items, warn_of
from melstate.recipes.data.recordings import Recording
from melstate.recipes.data.speech_rows import Augmentation, Joining, Row, SpeechRows, collate
from melstate.recipes.data.split import split_by_prompt
from melstate.recipes.data.steps import step_loader
from melstate.recipes.data.waveforms import Waveform, load_waveforms
from melstate.tts.text import FrontEnd, symbols
from melstate.vocoders.mel import MelConfig

# Phones without their stress; 0 is the CTC blank.
PHONES = sorted({phone.rstrip("012") for phone in symbols.PHONES})
PHONE_ID = {phone: number for number, phone in enumerate(PHONES, start=1)}


def read_corpus(layout: str, folder: str, **options: Any) -> tuple[list[Recording], list[Recording]]:
    """(train, dev) of one corpus; unreadable rows become one warning.

    Args:
        layout: "speechocean", "digits", "ljspeech" or "librispeech".
        options: speechocean: none. digits: `holdout_speaker` to leave out (dev: that speaker), else the corpus' own
            test clips are dev. ljspeech: `dev_prompts`, `speaker`. librispeech: `train`, `dev`, lists of parts.
    Raises: ValueError: unknown layout or option.
    """
    if layout == "speechocean":
        sets = [readers.read_speechocean(folder, part, **options) for part in readers.SPEECHOCEAN_PARTS]
        parts = [list(found.recordings) for found in sets]
    elif layout == "digits":
        sets = [readers.read_digits(folder)]
        speaker = options.pop("holdout_speaker", None)
        all_digits = sets[0].recordings
        held = readers.leave_speaker_out(all_digits, speaker) if speaker else None
        parts = list(held or readers.partition(all_digits, readers.is_digit_test))
    elif layout == "ljspeech":
        prompts = options.pop("dev_prompts", 40)
        sets = [readers.read_ljspeech_recordings(folder, options.pop("speaker", None))]
        rows = [Utterance(r.id, r.path, r.text, r.speaker) for r in sets[0].recordings]
        split = split_by_prompt(rows, prompts)
        parts = [[Recording(u.id, u.audio, u.text, u.speaker) for u in rows] for rows in split]
    elif layout == "librispeech":
        chosen = [options.pop("train", None), options.pop("dev", [])]
        sets = [readers.read_librispeech(folder, names) for names in chosen if names is None or names]
        parts = [list(found.recordings) for found in sets] + [[]]
    else:
        raise ValueError(f"corpus layout '{layout}' is not one of speechocean, digits, ljspeech, librispeech")
    if layout != "speechocean" and options:
        raise ValueError(f"corpus {folder}: unknown options {sorted(options)}")
    for found in sets:
        warn_of(f"{folder}: rows left out", found.problems)
    return parts[0], parts[1]


def phones_of(front_end: FrontEnd, text: str) -> list[tuple[int, ...]]:
    """Ids of the phones of each word that a normalised transcript is read with; these are not always its own words."""
    words: list[tuple[int, ...]] = []
    for sentence in front_end.sentences(text):
        read: list[list[int]] = [[] for _ in sentence.words]
        for name, word in zip(symbols.to_symbols(sentence.ids), sentence.word_of, strict=True):
            if word >= 0 and name.rstrip("012") in PHONE_ID:
                read[word].append(PHONE_ID[name.rstrip("012")])
        words += map(tuple, read)
    return words


class RecognitionData(pl.LightningDataModule):
    """Training rows from several corpora, development utterances one corpus after the other.

    Args:
        corpora: name → {layout, folder, weight, …}; see `read_corpus`. `weight` is the share of training seconds;
            `invented: true` says that the sentences are no language to learn from, the sound is.
        folder: what the corpora's folders are relative to.
        cache: folder for decoded waveforms.
        pieces: of the vocabulary, 0 for characters.
        phones: compute phone targets.
        batch_seconds, most_rows, augmentation, joining: see SpeechRows.
        alignments: the file of the training clips' word times that recipes.align_words writes; rows are cut by it.
        dev_limit: development utterances a corpus, spread evenly.
        mel: the contract; `features.SPEECH` by default.
        seed: of the batches. workers: loader processes.
    """

    def __init__(
        self,
        corpora: Mapping[str, Mapping[str, Any]],
        cache: str,
        folder: str = ".",
        pieces: int = 256,
        phones: bool = True,
        batch_seconds: float = 80.0,
        most_rows: int = 48,
        augmentation: Mapping[str, Any] | None = None,
        joining: Mapping[str, Any] | None = None,
        alignments: str | None = None,
        dev_limit: int | None = None,
        mel: Mapping[str, Any] | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.corpora = {name: dict(corpus) for name, corpus in corpora.items()}
        self.folder, self.cache, self.pieces, self.phones = Path(folder), Path(cache), pieces, phones
        self.batch_seconds, self.most_rows, self.dev_limit = batch_seconds, most_rows, dev_limit
        self.augmentation = Augmentation(**_tuples(augmentation or {}))
        self.joining = Joining(**_tuples(joining or {}))
        self.alignments = alignments
        self.mel = SPEECH if mel is None else MelConfig.from_dict(dict(mel))
        self.seed, self.workers = seed, workers
        self.batches_seen = 0
        self.train: list[Clip] = []
        self.sentences: list[str] = []  # of the training clips, each once, without invented ones
        self.dev: dict[str, list[Clip]] = {}
        self.tokens = Tokens()

    @property
    def dev_names(self) -> list[str]:
        """The corpora with development sets; their order is that of the validation loaders."""
        return list(self.dev)

    def setup(self, stage: str | None = None) -> None:
        if self.train:
            return
        times = load_times(self.alignments) if self.alignments else {}
        parts: dict[str, tuple[float, list[Waveform], list[Waveform]]] = {}
        said: set[str] = set()
        for name, options in self.corpora.items():
            options = dict(options)
            weight, invented = float(options.pop("weight", 1.0)), bool(options.pop("invented", False))
            train, dev = read_corpus(options.pop("layout"), str(self.folder / options.pop("folder")), **options)
            if self.dev_limit is not None and len(dev) > self.dev_limit:
                dev = [dev[i * len(dev) // self.dev_limit] for i in range(self.dev_limit)]
            waveforms, unread = load_waveforms([*train, *dev], self.mel.sample_rate, self.cache)
            warn_of(f"{name}: clips left out", unread)
            held = {r.id for r in dev}
            parts[name] = (
                weight,
                [w for w in waveforms if w.recording.id not in held],
                [w for w in waveforms if w.recording.id in held],
            )
            if not invented:
                said |= {normalize_transcript(w.recording.text) for w in parts[name][1]}
        self.sentences = sorted(said)
        self.tokens = Tokens.train(self.sentences, self.pieces)
        front_end = FrontEnd() if self.phones else None
        problems: list[str] = []
        for name, (weight, learned, judged) in parts.items():
            seconds = sum(len(w.speech) for w in learned) / self.mel.sample_rate
            self.train += [self._clip(w, front_end, weight / max(seconds, 1.0), times, problems) for w in learned]
            if judged:
                self.dev[name] = [self._clip(w, None, 0.0, {}, problems) for w in judged]
        warn_of(f"clips do not fit {self.alignments} and are never cut", problems)

    def _clip(
        self,
        waveform: Waveform,
        front_end: FrontEnd | None,
        weight: float,
        times: Mapping[str, np.ndarray],
        problems: list[str],
    ) -> Clip:
        name, text = waveform.recording.id, normalize_transcript(waveform.recording.text)
        tokens = tuple(self.tokens.encode(text))
        phones = phones_of(front_end, text) if front_end else []
        words = None
        if name in times:
            try:
                spelled = self.tokens.words(tokens)
                words = place_words(times[name], self.mel.sample_rate, len(waveform.speech), spelled, phones)
            except ValueError as error:
                problems.append(f"'{name}': {error}")
        return Clip(waveform, tokens, tuple(chain.from_iterable(phones)), text, weight, words)

    def header(self) -> dict[str, Any]:
        """What a checkpoint must carry beside the weights."""
        return {"tokens": self.tokens.to_dict()}

    def source(self) -> SpeechRows:
        return SpeechRows(
            self.train,
            self.mel,
            batch_seconds=self.batch_seconds,
            most_rows=self.most_rows,
            seed=self.seed,
            augmentation=self.augmentation,
            joining=self.joining,
        )

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return step_loader(self.source(), start=self.batches_seen, rank=rank, world=world, workers=self.workers)

    def val_dataloader(self) -> list[DataLoader]:
        """One loader a development set: whole clips as they are, about `batch_seconds` a batch."""
        loaders = []
        for clips in self.dev.values():
            groups: list[list[Clip]] = [[]]
            for clip in sorted(clips, key=lambda clip: len(clip.waveform.audio)):
                if (len(groups[-1]) + 1) * len(clip.waveform.audio) > self.batch_seconds * self.mel.sample_rate:
                    groups.append([])
                groups[-1].append(clip)
            loaders.append(DataLoader(Items([self.plain_batch(g) for g in groups if g]), batch_size=None))
        return loaders

    def plain_batch(self, clips: Sequence[Clip]) -> SpeechBatch:
        """Clips as they were recorded."""
        audio = [np.asarray(clip.waveform.audio, np.float32) / 32768.0 for clip in clips]
        rows = [
            Row(a, list(c.tokens), list(c.phones), [*c.tokens, speaker_token(0), END, END], c.text)
            for a, c in zip(audio, clips, strict=True)
        ]
        return collate(rows, [perturbed_log_mel(torch.from_numpy(a), self.mel) for a in audio])

    def state_dict(self) -> dict[str, int]:
        return {"batches_seen": self.batches_seen}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches_seen = state_dict["batches_seen"]


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, as configs have them, as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
