"""Read This American Life's aligned transcripts: {episode: [turn, …]} as JSON, audio apart.

Source: Mao et al., Interspeech 2020 (arXiv 2005.08072). The corpus comes as pickles too; those are never opened.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AlignedWord:
    """A word with its place in the episode, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Turn:
    """One utterance of one speaker; times are seconds from the episode's start, words may be empty where unaligned."""

    speaker: str
    role: str
    act: str
    start: float
    end: float
    text: str
    words: tuple[AlignedWord, ...]


@dataclass(frozen=True)
class Episode:
    """One conversation: its name, its audio file or None where that is not there, its turns in time order."""

    id: str
    audio: Path | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Episodes:
    """What could be read, and a line for everything that could not."""

    episodes: tuple[Episode, ...]
    problems: tuple[str, ...]


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a time in seconds")
    return float(value)


def _turn(row: Any) -> Turn:
    """One turn. Raises KeyError, TypeError or ValueError saying what is wrong with it."""
    start, end, text = _seconds(row["utterance_start"]), _seconds(row["utterance_end"]), row["utterance"]
    if end < start:
        raise ValueError(f"ends at {end:g} s, before it starts at {start:g} s")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("has no utterance")
    words = []
    for begin, stop, word in row.get("alignments") or []:
        begin, stop = _seconds(begin), _seconds(stop)
        if stop < begin:
            raise ValueError(f"word {word!r} ends at {stop:g} s, before it starts at {begin:g} s")
        words.append(AlignedWord(str(word), begin, stop))
    return Turn(
        str(row["speaker"]), str(row.get("role", "")), str(row.get("act", "")), start, end, text.strip(), tuple(words)
    )


def read_this_american_life(
    transcripts: str | Path, audio: str | Path | None = None, suffixes: tuple[str, ...] = (".mp3", ".flac", ".wav")
) -> Episodes:
    """Read one of {train,valid,test}-transcripts-aligned.json.

    Args:
        transcripts: the JSON file.
        audio: folder with <episode>.mp3 (or another of `suffixes`); None reads transcripts alone. An episode
            whose audio is missing is reported and kept out.
    Raises: FileNotFoundError: no such file. ValueError: not JSON of that layout, or no usable episode.
    """
    transcripts = Path(transcripts)
    if not transcripts.is_file():
        raise FileNotFoundError(f"{transcripts}: no such file")
    try:
        content = json.loads(transcripts.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{transcripts}: not JSON ({error}); pickled transcripts are not read") from error
    if not isinstance(content, dict):
        raise ValueError(f"{transcripts}: holds a {type(content).__name__}, expected {{episode: [turn, …]}}")
    episodes, problems = [], []
    for name, rows in content.items():
        where = f"{transcripts}: {name}"
        path = None
        if audio is not None:
            candidates = [Path(audio) / f"{name}{suffix}" for suffix in suffixes]
            path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if Path(name).name != name:
            problems.append(f"{where}: not an episode name")
        elif not isinstance(rows, list):
            problems.append(f"{where}: holds a {type(rows).__name__}, expected a list of turns")
        elif audio is not None and path is None:
            problems.append(f"{where}: no audio {name}{{{','.join(suffixes)}}} in {audio}")
        else:
            turns = []
            for number, row in enumerate(rows):
                try:
                    turns.append(_turn(row))
                except KeyError as error:
                    problems.append(f"{where}: turn {number}: no {error}")
                except (TypeError, ValueError, AttributeError) as error:
                    problems.append(f"{where}: turn {number}: {error}")
            if turns:
                episodes.append(Episode(name, path, tuple(sorted(turns, key=lambda turn: turn.start))))
            else:
                problems.append(f"{where}: no usable turn")
    if not episodes:
        raise ValueError(f"{transcripts}: no usable episode; {'; '.join(problems[:3]) or 'the file is empty'}")
    return Episodes(tuple(episodes), tuple(problems))
