"""What a data module learns from: corpora of several layouts, thinned, and split into training and development."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple

from melstate.recipes.data.corpus import Corpus, Utterance, read_ljspeech
from melstate.recipes.data.recordings import read_speechocean
from melstate.recipes.data.split import split_by_prompt
from melstate.vocoders import wav


def _read_speechocean(part: str, folder: str | Path, speaker: str | None) -> Corpus:
    """Its words, which come without case or marks, written as sentences."""
    found = read_speechocean(folder, part)
    rows = [Utterance(r.id, r.path, f"{r.text.lower().capitalize()}.", speaker or r.speaker) for r in found.recordings]
    return Corpus(tuple(rows), found.problems)


def _read_files(folder: str | Path, speaker: str | None) -> Corpus:
    """Every audio file of a folder; each is a prompt of its own, since nothing tells what is said."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    name = speaker or folder.resolve().name
    rows = [Utterance(p.stem, p, p.stem, name) for p in sorted(folder.iterdir()) if p.suffix.lower() in wav.FORMATS]
    if not rows:
        raise ValueError(f"{folder}: holds no {', '.join(wav.FORMATS)}")
    return Corpus(tuple(rows), ())


READERS: dict[str, Callable[[str | Path, str | None], Corpus]] = {
    "ljspeech": read_ljspeech,
    "files": _read_files,
    "speechocean762": partial(_read_speechocean, "train"),
    "speechocean762-dev": partial(_read_speechocean, "dev"),
}


class Split(NamedTuple):
    """One corpus: clips to train on, clips of development, and a line for everything that could not be read."""

    train: list[Utterance]
    dev: list[Utterance]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One corpus of a data module.

    Attributes:
        folder: where it lies.
        speaker: name for all its clips; None keeps the corpus' own (in LJSpeech's layout, the folder's).
        reader: a key of READERS; "files" needs no transcripts, which vocoders do not read.
        dev_prompts: prompts held out for development; None leaves it to the data module.
        held_out: all clips are for development, as fits speakers that training must not hear.
        per_speaker: clips to use of each speaker, picked by a hash of seed and id; None uses all.
        repeat: how often each clip is trained on in an epoch.
        bandwidth: Hz up to which the recordings hold anything, less than half the mel's rate for resampled ones; None
            if they hold all of it.
    """

    folder: str
    speaker: str | None = None
    reader: str = "ljspeech"
    dev_prompts: int | None = None
    held_out: bool = False
    per_speaker: int | None = None
    repeat: int = 1
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise ValueError(f"{self.folder}: reader must be one of {', '.join(READERS)}, got {self.reader!r}")
        if self.repeat < 1 or (self.per_speaker is not None and self.per_speaker < 1):
            raise ValueError(
                f"{self.folder}: per_speaker and repeat must be at least 1, got {self.per_speaker} and {self.repeat}"
            )

    def read(self, dev_prompts: int, seed: int, corrections: Mapping[str, str]) -> Split:
        """Prompts are held out before clips are thinned, so the split does not depend on it."""
        corpus = READERS[self.reader](self.folder, self.speaker)
        band = inf if self.bandwidth is None else self.bandwidth
        rows = [replace(u, text=corrections.get(u.text, u.text), bandwidth=band) for u in corpus.utterances]
        if self.held_out:
            return Split([], self._thinned(rows, seed), corpus.problems)
        train, dev = split_by_prompt(rows, dev_prompts if self.dev_prompts is None else self.dev_prompts, seed)
        return Split(self._thinned(train, seed) * self.repeat, dev, corpus.problems)

    def _thinned(self, rows: Sequence[Utterance], seed: int) -> list[Utterance]:
        if self.per_speaker is None:
            return list(rows)
        taken: Counter[str] = Counter()
        kept = set()
        for row in sorted(rows, key=lambda row: hashlib.sha256(f"{seed}:{row.id}".encode()).digest()):
            taken[row.speaker] += 1
            if taken[row.speaker] <= self.per_speaker:
                kept.add(row.id)
        return [row for row in rows if row.id in kept]
