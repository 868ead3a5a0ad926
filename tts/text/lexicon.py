"""Pronunciations of known words: the compiled dictionary, a user's own words, and forms derived from known stems.

The compiled file is gzip text of three lines: a JSON header, the words, the pronunciations; the last two are separated
by tabs. A pronunciation holds one character a phone; alternatives are separated by a space, the usual one first.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from melstate.tts.text import symbols

FORMAT = 1
PATH = Path(__file__).parent / "data" / "cmudict.gz"

Phones = tuple[str, ...]

# A slip of CMUdict, and words younger than it.
CORRECTIONS = {
    "twenty-one": "T W EH1 N T IY0 W AH2 N",
    "covid": "K OW1 V IH0 D",
    "emoji": "IH0 M OW1 JH IY0",
    "emojis": "IH0 M OW1 JH IY0 Z",
    "jpeg": "JH EY1 P EH2 G",
    "jpegs": "JH EY1 P EH2 G Z",
    "sci-fi": "S AY1 F AY1",
    "wi-fi": "W AY1 F AY2",
    "wifi": "W AY1 F AY2",
}

_CHARACTER = {phone: chr(48 + index) for index, phone in enumerate(symbols.PHONES)}
_PHONE = {character: phone for phone, character in _CHARACTER.items()}
_VOICELESS = {"P", "T", "K", "F", "TH"}
_SIBILANTS = {"S", "Z", "SH", "ZH", "CH", "JH"}


def pack(phones: Phones) -> str:
    """One character a phone."""
    return "".join(_CHARACTER[phone] for phone in phones)


def unpack(packed: str) -> Phones:
    """Inverse of pack."""
    return tuple(_PHONE[character] for character in packed)


@cache
def dictionary() -> dict[str, str]:
    """Packed pronunciations by lower-case word, read once a process.

    Raises:
        ValueError: the file is not a lexicon of this version.
    """
    header, words, spoken = gzip.decompress(PATH.read_bytes()).decode("latin-1").split("\n")
    found = json.loads(header)
    if found["format"] != FORMAT or tuple(found["phones"]) != symbols.PHONES:
        raise ValueError(
            f"{PATH}: lexicon format {found['format']} is not {FORMAT} with symbol table {symbols.VERSION}; "
            "compile it again (melstate.recipes.compile_lexicon)"
        )
    return dict(zip(words.split("\t"), spoken.split("\t"), strict=True))


def read_user_lexicon(source: str | Path | Mapping[str, str]) -> dict[str, Phones]:
    """A user's words: a file of lines `word  PH ON EM1 ES` (`#` starts a comment line), or the same as a mapping.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not a word and its phones, naming file and line (or the word of the mapping).
    """
    if isinstance(source, Mapping):
        places = [(f"user lexicon, word {word!r}", word, phones) for word, phones in source.items()]
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"user lexicon {path}: no such file")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"user lexicon {path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
        places = []
        for number, line in enumerate(lines, 1):
            word, _, phones = line.strip().replace("\t", " ").partition(" ")
            if word and not word.startswith("#"):
                places.append((f"user lexicon {path}:{number}", word, phones))
    words: dict[str, Phones] = {}
    for place, word, phones in places:
        if not word or not all(character.isalnum() or character in "'.-" for character in word):
            raise ValueError(f"{place}: {word!r} is not one word of letters, digits, apostrophes, hyphens and dots")
        try:
            words[word] = symbols.parse_phones(phones)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return words


class Lexicon:
    """Words with known pronunciations.

    Args:
        user: a file or mapping for read_user_lexicon. An entry with a capital letter answers that spelling only; an
            entry in small letters answers every spelling.
    """

    def __init__(self, user: str | Path | Mapping[str, str] | None = None) -> None:
        self.user = {} if user is None else read_user_lexicon(user)

    def of_user(self, word: str) -> Phones | None:
        """The user's own pronunciation of a word."""
        return self.user.get(word) or self.user.get(word.lower())

    def listed(self, word: str) -> tuple[Phones, ...]:
        """Pronunciations under exactly this word, the usual one first; empty if there is none."""
        own = self.of_user(word)
        if own:
            return (own,)
        if word.lower() in CORRECTIONS:
            return (symbols.parse_phones(CORRECTIONS[word.lower()]),)
        packed = dictionary().get(word.lower())
        return tuple(unpack(one) for one in packed.split(" ")) if packed else ()

    def pronounce(self, word: str) -> Phones | None:
        """The usual pronunciation of a word: listed, or made from a listed stem or listed parts; None if neither."""
        listed = self.listed(word)
        return listed[0] if listed else self._derived(word)

    def _derived(self, word: str) -> Phones | None:
        word = word.lower()
        if "-" in word:
            parts = [self.pronounce(part) for part in word.split("-") if part]
            if parts and all(parts):
                return tuple(phone for part in parts if part for phone in part)
            return None
        if word.endswith(("'s", "'")):
            owner = self.pronounce(word.rpartition("'")[0]) if len(word) > 2 else None
            if owner is None or word.endswith("s'"):
                return owner
            return add_s(owner)
        for suffix, add in (("s", add_s), ("ed", add_ed), ("ing", add_ing)):
            if word.endswith(suffix) and len(word) > len(suffix) + 2:
                for stem in _stems(word[: -len(suffix)], suffix):
                    listed = self.listed(stem)
                    if listed:
                        return add(listed[0])
        return None


def _stems(base: str, suffix: str) -> list[str]:
    """Spellings that `base` + suffix may come from, likeliest first."""
    if suffix == "s":
        # "ss" and "us" are no plurals.
        stems = [] if base[-1] in "su" else [base]
        if base.endswith("ie"):
            stems.append(base[:-2] + "y")
        if base.endswith(("se", "xe", "ze", "che", "she")):
            stems.append(base[:-1])
        return stems
    stems = [base, base + "e"] if base[-1] not in "cgsuvz" else [base + "e", base]
    if len(base) > 2 and base[-1] == base[-2] and base[-1] not in "aeiouls":
        stems.insert(0, base[:-1])
    if suffix == "ed" and base.endswith("i"):
        stems.append(base[:-1] + "y")
    return stems


def add_s(stem: Phones) -> Phones:
    """Plural, possessive or third person: S, Z or IH0 Z by the last phone."""
    if stem[-1] in _SIBILANTS:
        return (*stem, "IH0", "Z")
    return (*stem, "S" if stem[-1] in _VOICELESS else "Z")


def add_ed(stem: Phones) -> Phones:
    """Past tense: IH0 D, T or D by the last phone."""
    if stem[-1] in ("T", "D"):
        return (*stem, "IH0", "D")
    return (*stem, "T" if stem[-1] in _VOICELESS | _SIBILANTS - {"Z", "ZH", "JH"} else "D")


def add_ing(stem: Phones) -> Phones:
    """Present participle."""
    return (*stem, "IH0", "NG")
