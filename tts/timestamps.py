"""Times of sentences, words and phones as a file: subtitles (.srt) or everything (.json), written while speech is made.

Both hold no more than a sentence in memory and appear under their names whole or not at all. Seconds count from the
first sample of the audio; multiplied by the sample rate they are whole samples.

A caption shows the text as it is written: a spoken word is looked up in the text, and what is spoken differently from
how it is written ("2:00") lasts as long as what is said in its place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path
from typing import IO, Any

from melstate.tts.audio import Audio, Coverage, Span, SpokenSentence

SUFFIXES = (".srt", ".json")
LINE = 42  # characters a line of a caption, of which there are two
LONGEST = 7.0  # seconds a caption
DIGITS = 6  # decimals of a second in JSON: finer than a sample
FORMAT = 1

Add = Callable[[Audio], None]
_TOKEN = re.compile(r"\[\[.*?\]\]\S*|\S+")


@contextmanager
def writer(path: str | Path, about: Mapping[str, Any] | None = None) -> Iterator[Add]:
    """Takes the pieces of a stream (or all of it at once) and writes their times by the suffix of `path`.

    Args:
        about: JSON-able, written at the head of a .json file.
    Raises: ValueError: unknown suffix, or no piece was given. OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: unknown suffix '{path.suffix}'; use one of {', '.join(SUFFIXES)}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            if path.suffix.lower() == ".srt":
                captions = _Captions(stream)
                yield captions.add
            else:
                record = _Record(stream, dict(about or {}))
                yield record.add
                record.finish()
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _Sentences:
    """Collects words and phones until their sentence is over."""

    def __init__(self) -> None:
        self._words: list[Span] = []
        self._phones: list[Span] = []

    def take(self, audio: Audio) -> Iterator[tuple[SpokenSentence, list[Span], list[Span]]]:
        self._words += audio.words
        self._phones += audio.phones
        for sentence in audio.sentences:
            yield sentence, _until(sentence.end, self._words), _until(sentence.end, self._phones)


def _until(end: float, spans: list[Span]) -> list[Span]:
    """Takes away the spans that end by then."""
    count = sum(span.end <= end for span in spans)
    taken = spans[:count]
    del spans[:count]
    return taken


class _Captions:
    """SubRip."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._sentences, self._number = stream, _Sentences(), 0

    def add(self, audio: Audio) -> None:
        for sentence, words, _ in self._sentences.take(audio):
            for caption in captions(written(sentence.text, words)):
                self._number += 1
                times = f"{_clock(caption.start)} --> {_clock(caption.end)}"
                self._stream.write(f"{self._number}\n{times}\n{_two_lines(caption.text)}\n\n")


class _Record:
    """JSON, one line a sentence."""

    def __init__(self, stream: IO[str], about: dict[str, Any]) -> None:
        self._stream, self._sentences, self._about = stream, _Sentences(), about
        self._samples, self._rate = 0, 0
        self._coverage = Coverage()

    def add(self, audio: Audio) -> None:
        if not self._rate:
            self._rate = audio.sample_rate
            head = json.dumps({"format": FORMAT, **self._about, "sample_rate": self._rate}, ensure_ascii=False)
            self._stream.write(f'{head[:-1]},\n"sentences": [')
        self._samples += len(audio.samples)
        for sentence, words, phones in self._sentences.take(audio):
            entry = {
                **span_dict(Span(*sentence[:3])),
                "coverage": sentence.coverage.to_dict(),
                "words": [span_dict(span) for span in words],
                "phones": [span_dict(span) for span in phones],
            }
            comma = "," if self._coverage.sentences else ""
            self._coverage += sentence.coverage
            self._stream.write(f"{comma}\n{json.dumps(entry, ensure_ascii=False)}")

    def finish(self) -> None:
        if not self._rate:
            raise ValueError("no speech to write the times of")
        tail = {"samples": self._samples, "seconds": self._samples / self._rate, "coverage": self._coverage.to_dict()}
        self._stream.write(f"\n],\n{json.dumps(tail)[1:]}\n")


def span_dict(span: Span) -> dict[str, Any]:
    return {"text": span.text, "start": round(span.start, DIGITS), "end": round(span.end, DIGITS)}


def written(text: str, words: Sequence[Span]) -> list[Span]:
    """The text's own tokens, white space between them, with the times of the words that say them.

    A token that nothing says goes with its neighbour. The tokens' texts, joined by spaces, are the text's; their times
    are the words' in order, and cover all of them.
    """
    tokens: list[str] = []
    for token in _TOKEN.findall(text):
        # A mark that stands alone belongs to what is before it.
        if tokens and not (_key(token) and _key(tokens[-1])):
            tokens[-1] += f" {token}"
        else:
            tokens.append(token)
    if not words or not tokens:
        return []
    pairs = SequenceMatcher(None, [_key(t) for t in tokens], [_key(w.text) for w in words], autojunk=False)
    first: list[int] = []  # each token's first word; it says as far as the next token's
    at = said = 0
    for block in pairs.get_matching_blocks():
        between = block.a - at
        first += [said + number * (block.b - said) // between for number in range(between)]
        first += range(block.b, block.b + block.size)
        at, said = block.a + block.size, block.b + block.size
    first[0] = 0
    spans: list[Span] = []
    held = ""
    for number, token in enumerate(tokens):
        held = f"{held} {token}" if held else token
        end = first[number + 1] if number + 1 < len(tokens) else len(words)
        start = first[number]
        if end > start:
            spans.append(Span(held, words[start].start, words[end - 1].end))
            held = ""
    if held:
        spans[-1] = spans[-1]._replace(text=f"{spans[-1].text} {held}")
    return spans


def _key(token: str) -> str:
    return "".join(c for c in token.lower() if c.isalnum())


def captions(tokens: Sequence[Span]) -> list[Span]:
    """Tokens joined to captions: halved, after a mark rather than amid a phrase, until each fits two lines and
    LONGEST seconds or is a single token."""
    if not tokens:
        return []
    text = " ".join(token.text for token in tokens)
    whole = Span(text, tokens[0].start, tokens[-1].end)
    lines = _two_lines(text).split("\n")
    fits = len(lines) <= 2 and max(map(len, lines)) <= LINE and whole.end - whole.start <= LONGEST
    if fits or len(tokens) == 1:
        return [whole]
    middle = (whole.start + whole.end) / 2

    def price(cut: int) -> float:
        """Distance from the middle; a mark is worth the way to anywhere but the ends."""
        off = abs(tokens[cut].start - middle)
        return off - 0.35 * (whole.end - whole.start) * (tokens[cut - 1].text[-1] in ",;:.—–!?")

    cut = min(range(1, len(tokens)), key=price)
    return captions(tokens[:cut]) + captions(tokens[cut:])


def _two_lines(text: str) -> str:
    """One line where it fits, else two as even as words allow; more where two would be longer than LINE."""
    if len(text) <= LINE:
        return text
    spaces = [place for place, character in enumerate(text) if character == " "]
    fitting = [place for place in spaces if place <= LINE and len(text) - place - 1 <= LINE]
    if fitting:
        place = min(fitting, key=lambda place: abs(2 * place + 1 - len(text)))
        return f"{text[:place]}\n{text[place + 1 :]}"
    places = [place for place in spaces if place <= LINE] or spaces[:1]
    return f"{text[: places[-1]]}\n{_two_lines(text[places[-1] + 1 :])}" if places else text


def _clock(seconds: float) -> str:
    """SubRip's hours:minutes:seconds,milliseconds."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
