"""The symbol table: what every acoustic model reads. Frozen: a change means retraining, so a new VERSION.

A symbol's id is its index in SYMBOLS: padding, the two edges, five punctuation marks, 69 ARPAbet phones (15 vowels with
stress 0, 1 or 2, and 24 consonants; Carnegie Mellon Pronouncing Dictionary).
"""

from __future__ import annotations

from collections.abc import Iterable

VERSION = 1

PAD, BEGIN, END = "_", "^", "$"
PUNCTUATION = (",", ";", ".", "?", "!")
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = tuple("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
PHONES = tuple(sorted([vowel + stress for vowel in VOWELS for stress in "012"] + list(CONSONANTS)))
SYMBOLS = (PAD, BEGIN, END, *PUNCTUATION, *PHONES)
ID = {symbol: index for index, symbol in enumerate(SYMBOLS)}

# Other marks become the nearest of PUNCTUATION; marks found nowhere here (quotes, hyphens inside words) are silent.
FOLD = {":": ";", "—": ",", "–": ",", "…": ".", "(": ",", ")": ",", "[": ",", "]": ",", "{": ",", "}": ","}
# Where several marks meet, one is kept: the rightmost in this order.
STRENGTH = {",": 0, ";": 1, ".": 2, "!": 3, "?": 4}


def to_ids(symbols: Iterable[str]) -> list[int]:
    """Ids of symbols. Raises ValueError naming a symbol that is not in the table."""
    ids = []
    for position, symbol in enumerate(symbols):
        if symbol not in ID:
            raise ValueError(f"symbol {position}: {symbol!r} is not in symbol table {VERSION}; {hint(symbol)}")
        ids.append(ID[symbol])
    return ids


def to_symbols(ids: Iterable[int]) -> list[str]:
    """Symbols of ids. Raises ValueError naming an id outside the table."""
    symbols = []
    for position, index in enumerate(ids):
        if not 0 <= index < len(SYMBOLS):
            raise ValueError(f"symbol {position}: id {index} is outside symbol table {VERSION} (0..{len(SYMBOLS) - 1})")
        symbols.append(SYMBOLS[index])
    return symbols


def parse_phones(text: str) -> tuple[str, ...]:
    """Phones of a space-separated line such as "HH AH0 L OW1"; case is ignored.

    Raises:
        ValueError: no phones, or one that does not exist, named with what to write instead.
    """
    phones = tuple(text.upper().split())
    if not phones:
        raise ValueError("no phones given; write ARPAbet phones such as HH AH0 L OW1")
    for phone in phones:
        if phone not in ID or phone in (PAD, BEGIN, END, *PUNCTUATION):
            raise ValueError(f"unknown phone {phone[:20]!r}; {hint(phone)}")
    return phones


def hint(symbol: str) -> str:
    """What to write instead of a symbol that is not in the table."""
    if symbol in VOWELS:
        return f"a vowel carries its stress: {symbol}0, {symbol}1 or {symbol}2"
    if symbol[:-1] in CONSONANTS and symbol[-1:].isdigit():
        return f"a consonant carries no stress: {symbol[:-1]}"
    return f"phones are {' '.join(VOWELS)} (each with 0, 1 or 2) and {' '.join(CONSONANTS)}"


def is_vowel(symbol: str) -> bool:
    """Whether a symbol of the table is a vowel."""
    return symbol[:-1] in VOWELS
