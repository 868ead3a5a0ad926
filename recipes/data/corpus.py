"""A folder of clips in LJSpeech's layout: metadata.csv beside wavs/, one `id|text|normalised text` a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from melstate.vocoders import wav
from melstate.vocoders.checkpoint import write_atomic

SUFFIXES = (".wav", ".flac")


@dataclass(frozen=True)
class Utterance:
    """One clip: its id, its audio file, the text that is spoken, the speaker's name, the Hz its spectrum ends at."""

    id: str
    audio: Path
    text: str
    speaker: str
    bandwidth: float = inf


@dataclass(frozen=True)
class Corpus:
    """What could be read, and a line for everything that could not: 'metadata.csv:12: …'."""

    utterances: tuple[Utterance, ...]
    problems: tuple[str, ...]


def read_ljspeech(folder: str | Path, speaker: str | None = None) -> Corpus:
    """Read `folder`/metadata.csv; audio is wavs/<id>.wav or .flac.

    The third column (normalised text) is used where it is given, else the second. Bad rows are reported, not raised:
    wrong column count, empty text, an id with a path in it, a repeated id, a missing file.

    Args:
        folder: the corpus.
        speaker: name for all clips; the folder's name by default.
    Raises: FileNotFoundError: no metadata.csv. ValueError: no usable row at all, with the first problems.
    """
    folder = Path(folder)
    metadata = folder / "metadata.csv"
    if not metadata.is_file():
        raise FileNotFoundError(f"{metadata}: no such file; a corpus is a folder with metadata.csv and wavs/")
    utterances: list[Utterance] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    lines = metadata.read_bytes().split(b"\n")
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        where = f"{metadata}:{number}"
        try:
            columns = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r").split("|")
        except UnicodeDecodeError as error:
            problems.append(f"{where}: not UTF-8 ({error.reason} at byte {error.start})")
            continue
        if len(columns) not in (2, 3):
            problems.append(f"{where}: {len(columns)} columns, expected 'id|text' or 'id|text|normalised text'")
            continue
        name, text = columns[0].strip(), columns[-1].strip() or columns[1].strip()
        if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            problems.append(f"{where}: '{name}' is not a clip id")
        elif name in seen:
            problems.append(f"{where}: '{name}' was already given in line {seen[name]}")
        elif not text:
            problems.append(f"{where}: '{name}' has no text")
        else:
            candidates = [folder / "wavs" / (name + suffix) for suffix in SUFFIXES]
            audio = next((path for path in candidates if path.is_file()), None)
            if audio is None:
                problems.append(f"{where}: no {' or '.join(str(path) for path in candidates)}")
            else:
                seen[name] = number
                utterances.append(Utterance(name, audio, text, speaker or folder.resolve().name))
    if not utterances:
        raise ValueError(f"{metadata}: no usable row; {'; '.join(problems[:3]) or 'the file is empty'}")
    return Corpus(tuple(utterances), tuple(problems))


def write_ljspeech(folder: str | Path, clips: Iterable[tuple[str, str, np.ndarray, int]]) -> tuple[int, float]:
    """Write clips (id, text, samples in [-1, 1], Hz) as flac, and what is said in them once all are there.

    Returns: how many clips, and their seconds. Raises: OSError.
    """
    folder = Path(folder)
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    rows, seconds = list[str](), 0.0
    for name, text, samples, rate in clips:
        wav.write(folder / "wavs" / f"{name}.flac", samples, rate)
        rows.append(f"{name}|{text}|{text}\n")
        seconds += len(samples) / rate
    write_atomic(folder / "metadata.csv", "".join(rows).encode())
    return len(rows), seconds
