"""Transcribed recordings to train and test recognition on: one reader a corpus layout, one record for all.

Bad rows never stop a reader: they are left out and reported, each with its place. Speakers carry their corpus' name
("digits-george"), so that corpora can be mixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melstate.recipes.data.corpus import read_ljspeech

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEST_INDICES = range(5)  # the corpus' own test set: the first five takes of every speaker and digit
SPEECHOCEAN_PARTS = ("train", "dev")


@dataclass(frozen=True)
class Recording:
    """One clip: its id, its audio file (any rate), the words spoken, the speaker."""

    id: str
    path: Path
    text: str
    speaker: str


@dataclass(frozen=True)
class Recordings:
    """What could be read, and a line for everything that could not: 'dev.tsv:12: …'."""

    recordings: tuple[Recording, ...]
    problems: tuple[str, ...]


class _Collector:
    """Gathers recordings, refusing repeated ids, missing files and empty texts by name."""

    def __init__(self) -> None:
        self.recordings: dict[str, Recording] = {}
        self.problems: list[str] = []

    def add(self, where: str, name: str, path: Path, text: str, speaker: str) -> None:
        if name in self.recordings:
            self.problems.append(f"{where}: '{name}' was already given")
        elif not text.strip():
            self.problems.append(f"{where}: '{name}' has no text")
        elif not path.is_file():
            self.problems.append(f"{where}: no {path}")
        else:
            self.recordings[name] = Recording(name, path, text.strip(), speaker)

    def done(self, source: str | Path) -> Recordings:
        if not self.recordings:
            raise ValueError(f"{source}: no usable recording; {'; '.join(self.problems[:3]) or 'nothing was found'}")
        return Recordings(tuple(self.recordings.values()), tuple(self.problems))


def _lines(path: Path, problems: list[str]) -> Iterable[tuple[str, str]]:
    """('file:number', line) of every line that is UTF-8 and not blank."""
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            problems.append(f"{where}: not UTF-8 ({error.reason} at byte {error.start})")
            continue
        if line.strip():
            yield where, line


def read_speechocean(folder: str | Path, part: str) -> Recordings:
    """speechocean762: `part`.tsv (utterance, speaker, gender, age, text) beside `part`/<utterance>.ogg.

    Args:
        part: "train" or "dev", whose speakers differ.
    Raises: FileNotFoundError: no such table. ValueError: unknown part, other columns, or no usable row.
    """
    if part not in SPEECHOCEAN_PARTS:
        raise ValueError(f"speechocean762 has the parts {', '.join(SPEECHOCEAN_PARTS)}, not '{part}'")
    folder = Path(folder)
    table = folder / f"{part}.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"{table}: no such file; expected {part}.tsv and {part}/ in {folder}")
    found = _Collector()
    rows = iter(_lines(table, found.problems))
    columns = next(rows, ("", ""))[1].split("\t")
    if not {"utterance", "speaker", "text"} <= set(columns):
        raise ValueError(f"{table}: columns are {columns}; utterance, speaker and text are needed")
    for where, line in rows:
        cells = line.split("\t")
        if len(cells) != len(columns):
            found.problems.append(f"{where}: {len(cells)} columns, the heading has {len(columns)}")
            continue
        row = dict(zip(columns, cells, strict=True))
        name = row["utterance"].strip()
        if not re.fullmatch(r"[\w-]+", name):
            found.problems.append(f"{where}: '{name}' is not an utterance id")
            continue
        found.add(where, name, folder / part / f"{name}.ogg", row["text"], f"speechocean762-{row['speaker'].strip()}")
    return found.done(table)


def read_digits(folder: str | Path) -> Recordings:
    """Free spoken digits: {digit}_{speaker}_{index}.flac or .wav, in `folder` or its recordings/.

    Raises: FileNotFoundError: no such folder. ValueError: no usable file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    place = folder / "recordings" if (folder / "recordings").is_dir() else folder
    found = _Collector()
    for path in sorted(place.iterdir()):
        if path.suffix not in (".flac", ".wav"):
            continue
        match = re.fullmatch(r"(\d)_([^_]+)_(\d+)", path.stem)
        if match is None:
            found.problems.append(f"{path}: the name is not digit_speaker_index")
        else:
            found.add(str(path), path.stem, path, DIGITS[int(match[1])], f"digits-{match[2]}")
    return found.done(place)


def is_digit_test(recording: Recording) -> bool:
    """Whether a clip of `read_digits` is in the corpus' own test set (index 0 to 4)."""
    return int(recording.id.rsplit("_", 1)[1]) in DIGIT_TEST_INDICES


def read_ljspeech_recordings(folder: str | Path, speaker: str | None = None) -> Recordings:
    """A folder in LJSpeech's layout (kathleen too), as `read_ljspeech` reads it."""
    corpus = read_ljspeech(folder, speaker)
    return Recordings(tuple(Recording(u.id, u.audio, u.text, u.speaker) for u in corpus.utterances), corpus.problems)


def read_librispeech(folder: str | Path, parts: Sequence[str] | None = None) -> Recordings:
    """LibriSpeech: part/speaker/chapter/speaker-chapter.trans.txt, a line 'id WORDS' for each <id>.flac beside it.

    Args:
        folder: LibriSpeech itself, or the folder that holds it.
        parts: which ("train-clean-100", …); all that are there by default.
    Raises: FileNotFoundError: no such folder or part. ValueError: no usable recording.
    """
    folder = Path(folder)
    if (folder / "LibriSpeech").is_dir():
        folder = folder / "LibriSpeech"
    places = [folder] if parts is None else [folder / part for part in parts]
    for place in places:
        if not place.is_dir():
            raise FileNotFoundError(f"{place}: no such folder; melstate.recipes.data.download fetches LibriSpeech")
    found = _Collector()
    for transcript in sorted(path for place in places for path in place.rglob("*.trans.txt")):
        for where, line in _lines(transcript, found.problems):
            name, _, text = line.partition(" ")
            if not re.fullmatch(r"\d+-\d+-\d+", name):
                found.problems.append(f"{where}: '{name}' is not speaker-chapter-number")
                continue
            found.add(where, name, transcript.with_name(f"{name}.flac"), text, f"librispeech-{name.split('-')[0]}")
    return found.done(folder)


def partition(
    recordings: Iterable[Recording], held_out: Callable[[Recording], bool]
) -> tuple[list[Recording], list[Recording]]:
    """(those to train on, those held out); `is_digit_test` is one such test. Neither order changes."""
    kept: list[Recording] = []
    held: list[Recording] = []
    for recording in recordings:
        (held if held_out(recording) else kept).append(recording)
    return kept, held


def leave_speaker_out(recordings: Sequence[Recording], speaker: str) -> tuple[list[Recording], list[Recording]]:
    """(all others, the speaker's own). Raises ValueError naming the speakers there are if this is none of them."""
    speakers = sorted({recording.speaker for recording in recordings})
    if speaker not in speakers:
        raise ValueError(f"no speaker '{speaker}'; there are {', '.join(speakers)}")
    return partition(recordings, lambda recording: recording.speaker == speaker)


def read_layout(corpus: Mapping[str, Any]) -> Recordings:
    """A corpus as configs name it: {layout: …, folder: …} and, if wanted, part, leave_out and limit.

    Args:
        corpus: layout is speechocean, digits, ljspeech or librispeech. part is speechocean762's or LibriSpeech's, for
            digits "train" or "test"; all there is by default (speechocean762: train). leave_out lists speakers to leave
            out, limit keeps so many clips of each speaker.
    Raises: ValueError: unknown layout, or nothing is left.
    """
    layout, folder, part = corpus["layout"], corpus["folder"], corpus.get("part")
    if layout == "speechocean":
        found = read_speechocean(folder, part or "train")
    elif layout == "digits":
        found = read_digits(folder)
        if part is not None:
            found = Recordings(tuple(partition(found.recordings, is_digit_test)[part == "test"]), found.problems)
    elif layout == "ljspeech":
        found = read_ljspeech_recordings(folder)
    elif layout == "librispeech":
        found = read_librispeech(folder, None if part is None else [part])
    else:
        raise ValueError(f"unknown layout '{layout}'; there are digits, librispeech, ljspeech, speechocean")
    limit = corpus.get("limit")
    counts: dict[str, int] = {}
    kept = []
    for recording in found.recordings:
        counts[recording.speaker] = counts.get(recording.speaker, 0) + 1
        if recording.speaker not in corpus.get("leave_out", ()) and (
            limit is None or counts[recording.speaker] <= limit
        ):
            kept.append(recording)
    if not kept:
        raise ValueError(f"{folder}: every speaker is left out")
    return Recordings(tuple(kept), found.problems)
