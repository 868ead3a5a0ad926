"""Text into sentences, and over-long sentences into parts that a voice trained on short clips can carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import sentencex

from melstate.tts.text.abbreviations import NUMBERED, TITLES

# Days and months that sentencex ends a sentence at, though a date or time follows.
DAYS = frozenset("Mon Tue Tues Wed Thu Thur Thurs Fri Sat Sun Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec".split())

# Longest part, in words; what is longer is cut at its last clause mark past MIN_WORDS, or between words if it has none.
MAX_WORDS = 60
MIN_WORDS = 12
# Characters looked at in one go.
BLOCK = 4000
# Lengths that a line has only because an editor or mailer wrapped it; paragraphs written as one line are longer.
WRAPPED = range(50, 101)
BULLET = re.compile(r"(?:[-*•–—]|\(?[0-9a-zA-Z]{1,3}[.)])\s")


def split_sentences(text: str) -> Iterator[str]:
    """Sentences of a text in order, stripped, never empty; a line break ends one unless the line was merely wrapped."""
    for line in _unwrapped(text.splitlines()):
        waiting = ""
        for start, end in _blocks(line):
            pieces = _joined(sentencex.segment("en", waiting + line[start:end]))
            # The last sentence of a block may go on in the next.
            waiting = pieces.pop() if pieces and end < len(line) and len(pieces[-1]) <= BLOCK else ""
            yield from filter(None, map(str.strip, pieces))


def _unwrapped(lines: Iterable[str]) -> Iterator[str]:
    """Lines as they were before hard wrapping: joined after a comma, a hyphen, or a length that tells of a margin."""
    parts: list[str] = []
    for line in map(str.strip, lines):
        if parts and not (line and _wraps(parts[-1]) and not BULLET.match(line)):
            yield " ".join(parts)
            parts = []
        if line and parts and parts[-1][-1:] == "-" and parts[-1][-2:-1].isalpha() and line[0].islower():
            parts[-1] += line  # a hyphenated word
        elif line:
            parts.append(line)
    if parts:
        yield " ".join(parts)


def _wraps(line: str) -> bool:
    return len(line) in WRAPPED or line.endswith((",", ";", "-"))


def _blocks(line: str) -> Iterator[tuple[int, int]]:
    """Where to cut a long line, at spaces if there are any: sentencex takes quadratic time on some rows of quotes."""
    start = 0
    while start < len(line):
        end = start + BLOCK
        if end < len(line):
            end = max(line.rfind(" ", start, end) + 1, 0) or end
        yield start, min(end, len(line))
        start = end


def _joined(pieces: Sequence[str]) -> list[str]:
    """Pieces of sentencex, false ends repaired."""
    sentences: list[str] = []
    for piece in pieces:
        if sentences and _continues(sentences[-1], piece):
            sentences[-1] += piece
        else:
            sentences.append(piece)
    return sentences


def _continues(before: str, after: str) -> bool:
    """Whether a supposed sentence ends in an abbreviation that wants what follows: "vol." "2", "Gen." "Lee"."""
    last = before[-20:].rstrip().rpartition(" ")[2]
    if not last.endswith("."):
        return False
    word, first = last[:-1], after.lstrip()[:1]
    if first.isdigit():
        return word.lower() in NUMBERED or word in DAYS or word.lower() in ("approx", "est", "no", "nos")
    return first.isupper() and (word in TITLES or word in ("Ft", "Mt", "St"))


def split_long(is_word: Sequence[bool], sizes: Sequence[int], max_size: int = 600) -> list[tuple[int, int]]:
    """Where to cut a sentence of words and marks: half-open ranges that cover it, each of at most MAX_WORDS words.

    Args:
        is_word: for each token, whether it is a word (else a punctuation mark).
        sizes: symbols of each token; a part holds at most max_size unless a single token is longer.
    """
    parts = []
    start = words = size = 0
    cut = None
    for index, word in enumerate(is_word):
        if word and (words == MAX_WORDS or (size + sizes[index] > max_size and words)):
            end = cut or index
            parts.append((start, end))
            words = sum(is_word[end:index])
            size = sum(sizes[end:index])
            start, cut = end, None
        words += word
        size += sizes[index]
        if not word and words >= MIN_WORDS:
            cut = index + 1
    if start < len(is_word):
        parts.append((start, len(is_word)))
    return parts
