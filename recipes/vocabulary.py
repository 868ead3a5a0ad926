"""The words a recogniser may write: how common they are, and how they are spoken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from melstate.asr.pronunciations import Pronunciations
from melstate.asr.tokens import normalize_transcript
from melstate.recipes.compile_lexicon import read_cmudict
from melstate.recipes.data.recognition import PHONE_ID, phones_of
from melstate.tts.text import FrontEnd

Spoken = Mapping[str, Sequence[tuple[str, ...]]]


def read_frequencies(path: str | Path) -> dict[str, float]:
    """Lines of a word and how often it is used, on any scale.

    Raises: ValueError: a line that is something else. FileNotFoundError.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        try:
            word, frequency = line.split()
            found[word] = float(frequency)
        except ValueError:
            raise ValueError(f"{path}:{number}: {line[:80]!r} is not a word and a number") from None
    return found


def read_dictionary(
    path: str | Path, frequencies: Mapping[str, float] | None = None
) -> dict[str, list[tuple[str, ...]]]:
    """A dictionary in the form of CMUdict: words that a transcript may hold, and that have a frequency if any have."""
    entries = read_cmudict(Path(path))
    return {
        word: ways
        for word, ways in entries.items()
        if normalize_transcript(word) == word and (frequencies is None or word in frequencies)
    }


def pronounce(words: Iterable[str], dictionary: Spoken) -> Pronunciations:
    """How the words are spoken: as the dictionary has it, and as this project's own voices read them."""
    front_end = FrontEnd()
    spoken: dict[str, set[tuple[int, ...]]] = {}
    for word in words:
        ways = {tuple(PHONE_ID[phone.rstrip("012")] for phone in way) for way in dictionary.get(word, ())}
        read = phones_of(front_end, word)
        if len(read) == 1 or not ways:
            ways.add(tuple(phone for part in read for phone in part))
        spoken[word] = ways
    return Pronunciations.build(spoken)
