"""Web addresses, e-mail, hashtags, telephone numbers and other codes with their own punctuation."""

from __future__ import annotations

import re

from melstate.tts.text import numbers
from melstate.tts.text.lexicon import dictionary
from melstate.tts.text.rules import Rule, spell

DOMAINS = frozenset(
    "com org net edu gov mil int info io co ai app dev me tv uk us de fr ca au eu ch jp in it es nl se ru br cn".split()
)
SAID = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals", "&": "and",
    "%": "percent",
    "#": "hash", ":": "colon", "~": "tilde", "+": "plus", "@": "at",
}  # fmt: skip
_PIECE = re.compile(r"[A-Z]?[a-z]++|[A-Z]++(?![a-z])|[A-Z]|\d++|.")
_TOKEN = re.compile(r"[^\s<>\"]++")
_TRAILING = ".,;:!?)]}'…—"
_PHONE = re.compile(
    r"(?<![\w.+-])(?:(\+?1)[-. ]?)?(?:\((\d{3})\) ?|(\d{3})[-. ])(\d{3})[-. ](\d{4})(?![\w-])"
    r"|(?<![\w.+-])(\d{3})-(\d{4})(?![\w-])"
)
_INTERNATIONAL = re.compile(r"(?<![\w+])\+(\d{1,3})((?:[ -]\(?\d{1,8}\)?){2,6})(?![\w-])")
_DASHED = re.compile(r"(?<![\w-])\d++(?:-\d++){2,}+(?!\w)")
_DOTTED = re.compile(r"(?<![\w.])([vV]?)(\d{1,9}(?:\.\d{1,9}){2,}+)(?![\w])")


def say_word(word: str) -> str:
    """A run of letters in an address: a word if there is such a word, else spelled."""
    return word if len(word) > 2 and word.lower() in dictionary() else spell(word) if len(word) < 5 else word


def say_address(text: str) -> str:
    """Every letter, digit and mark of an address in words."""
    words = []
    for piece in _PIECE.findall(text):
        if piece.isdigit():
            words.append(numbers.cardinal(piece) if len(piece) < 3 else numbers.digits(piece))
        elif piece.isalpha():
            words.append(say_word(piece))
        elif piece in SAID:
            words.append(SAID[piece])
    return " ".join(words)


def _address(match: re.Match[str]) -> str:
    token = match.group()
    body = token.rstrip(_TRAILING)
    body, lead = body.lstrip("('["), body[: len(body) - len(body.lstrip("('["))]
    rest = token[len(lead) + len(body) :]
    lowered = body[:8].lower()
    for scheme in ("http://", "https://", "ftp://"):
        if lowered.startswith(scheme):
            return lead + say_address(body[len(scheme) :]) + rest
    if lowered.startswith("www."):
        return lead + say_address(body) + rest
    name, at, host = body.partition("@")
    if at and name and "." in host and "@" not in host:
        return lead + say_address(body) + rest
    if at and not name and host[:1].isalpha():
        return f"{lead}at {say_address(host)}{rest}"
    if body[:1] == "#" and body[1:2].isalpha():
        return f"{lead}hashtag {say_address(body[1:])}{rest}"
    host = body.partition("/")[0]
    stem, dot, domain = host.rpartition(".")
    if (
        dot
        and domain.lower() in DOMAINS
        and len(stem) > 1
        and stem[-1].isalnum()
        and not (domain[0].isupper() and stem[0].islower())
    ):
        return lead + say_address(body) + rest
    return token


def _phone(match: re.Match[str]) -> str:
    country, area, bare, exchange, line, short, number = match.groups()
    groups = [short, number] if short else [country and country.lstrip("+"), area or bare, exchange, line]
    said = [
        f"{numbers.cardinal(group[0])} hundred" if group == "800" else numbers.digits(group)
        for group in groups
        if group
    ]
    return ("plus " if country and "+" in country else "") + ", ".join(said)


def _international(match: re.Match[str]) -> str:
    groups = [match.group(1), *re.findall(r"\d+", match.group(2))]
    return "plus " + ", ".join(numbers.digits(group) for group in groups)


def _dashed(match: re.Match[str]) -> str:
    return ", ".join(numbers.digits(group) for group in match.group().split("-"))


def _dotted(match: re.Match[str]) -> str:
    groups = match.group(2).split(".")
    joint = " point " if match.group(1) or len(groups) == 3 else " dot "
    return ("version " if match.group(1) else "") + joint.join(numbers.cardinal(group) for group in groups)


ADDRESSES: tuple[Rule, ...] = ((_TOKEN, _address),)
CODES: tuple[Rule, ...] = (
    (_PHONE, _phone),
    (_INTERNATIONAL, _international),
    (_DASHED, _dashed),
    (_DOTTED, _dotted),
    (re.compile(r"(?<!\w)[vV](?=\d{1,9}\.\d)"), lambda match: "version "),
)
