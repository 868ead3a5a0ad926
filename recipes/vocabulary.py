"""The words that a recogniser may write, and how they are spoken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from melstate.asr.pronunciations import Pronunciations
from melstate.asr.tokens import normalize_transcript
from melstate.recipes.compile_lexicon import read_cmudict
from melstate.recipes.data.recognition import PHONE_ID, phones_of
from melstate.tts.text import FrontEnd

Dictionary = Mapping[str, Sequence[tuple[str, ...]]]


def read_dictionary(path: str | Path, words: Iterable[str] | None = None) -> dict[str, list[tuple[str, ...]]]:
    """A dictionary in the form of CMUdict: what a transcript may hold of it, and of `words` where they are given."""
    entries, wanted = read_cmudict(Path(path)), None if words is None else set(words)
    return {
        word: ways
        for word, ways in entries.items()
        if normalize_transcript(word) == word and (wanted is None or word in wanted)
    }


def pronounce(words: Iterable[str], dictionary: Dictionary) -> Pronunciations:
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
