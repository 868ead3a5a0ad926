"""What the normaliser's rules share: the shape of a rule, the shape of a number, and how letters are spelled.

Every pattern is anchored by a look-behind that lets it start only where its first run of characters starts, and repeats
without giving back (`++`, `*+`) or a bounded number of times. So no rule can take more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

# The letter A where it is spelled, to be told from the article until phones are chosen. Cleaned text cannot hold it.
LETTER_A = "Ⓐ"

NUMBER = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?+|\.\d++"
# A number starts here: not inside a word or another number.
START = r"(?<![\w.,])(?<!\d[.,])"


def apply(text: str, rules: Iterable[Rule]) -> str:
    """Text after every rule, in order."""
    for pattern, replace in rules:
        text = pattern.sub(replace, text)
    return text


def spell(letters: str) -> str:
    """Letters one by one: "GPT" → "G P T"."""
    return " ".join(LETTER_A if letter in "aA" else letter.upper() for letter in letters)


def ends_sentence(match: re.Match[str]) -> bool:
    """Whether nothing but closing quotes and brackets follows: a matched full stop ends the sentence too."""
    return match.group().endswith(".") and not match.string[match.end() : match.end() + 4].strip("\"' )]")


def stop(match: re.Match[str]) -> str:
    """The full stop that an abbreviation shares with its sentence."""
    return "." if ends_sentence(match) else ""
