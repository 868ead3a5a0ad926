"""What the recogniser writes: pieces of words or characters, utterance ends, speakers, and the CTC blank."""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

BLANK, END = 0, 1  # END closes an utterance, and is what decoding starts from
SPEAKERS = 4  # speaker tokens by order of appearance: "text … <speaker> END"
FIRST_SPEAKER = 2
FIRST_PIECE = FIRST_SPEAKER + SPEAKERS
BOUNDARY = "▁"  # opens a word, as sentencepiece has it
LETTERS = "abcdefghijklmnopqrstuvwxyz'"

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_GROUPS = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
MOST_DIGITS = 12  # longer numbers are read digit by digit


def normalize_transcript(text: str) -> str:
    """A transcript as the recogniser writes: lower-case letters, apostrophes inside words, single spaces.

    Accents are dropped, numbers become words, everything else separates words.
    """
    text = unicodedata.normalize("NFKD", text).replace("’", "'").casefold()
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"[0-9]+", lambda digits: f" {spell(digits[0])} ", text)
    words = (word.strip("'") for word in re.sub(r"[^a-z']+", " ", text).split())
    return " ".join(word for word in words if word)


def spell(digits: str) -> str:
    """A string of digits in words: a cardinal, or digit by digit after a leading zero or when very long."""
    if len(digits) > MOST_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return " ".join(_ONES[int(digit)] for digit in digits)
    return _cardinal(int(digits))


def _cardinal(number: int) -> str:
    for size, name in _GROUPS:
        if number >= size:
            rest = f" {_cardinal(number % size)}" if number % size else ""
            return f"{_cardinal(number // size)} {name}{rest}"
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")


class Tokens:
    """Text ↔ ids. Ids: 0 blank, 1 end of utterance, 2 … speakers, then pieces; a word's first piece starts with ▁.

    Args:
        model: a serialised sentencepiece model, or None for characters.
    """

    def __init__(self, model: bytes | None = None) -> None:
        self.model = model
        if model is None:
            self.pieces = (BOUNDARY, *LETTERS)
        else:
            import sentencepiece

            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            unknown = self._processor.unk_id()
            ids = range(self._processor.get_piece_size())
            self.pieces = tuple("" if i == unknown else self._processor.id_to_piece(i) for i in ids)

    def __len__(self) -> int:
        """Ids in all, blank, end and speakers included."""
        return FIRST_PIECE + len(self.pieces)

    @classmethod
    def train(cls, transcripts: Iterable[str], pieces: int) -> Tokens:
        """Byte-pair pieces learned from normalised transcripts; `pieces` = 0 for characters.

        Raises: ValueError: too little text for so many pieces.
        """
        if not pieces:
            return cls()
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(transcripts),
                model_writer=model,
                vocab_size=pieces,
                model_type="bpe",
                normalization_rule_name="identity",
                character_coverage=1.0,
                required_chars=LETTERS,
                bos_id=-1,
                eos_id=-1,
                unk_id=0,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"{pieces} pieces cannot be learned from these transcripts ({error}); ask for fewer"
            ) from error
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised transcript; letters of other alphabets are left out."""
        if self.model is None:
            marked = "".join(BOUNDARY + word for word in text.split())
            return [FIRST_PIECE + self.pieces.index(c) for c in marked if c in self.pieces]
        return [FIRST_PIECE + i for i in self._processor.encode(text) if i != self._processor.unk_id()]

    def decode(self, ids: Iterable[int]) -> str:
        """The words that ids spell; blank, ends and speakers only separate."""
        return " ".join("".join(self.pieces[i - FIRST_PIECE] for i in word) for word in self.words(ids)).replace(
            BOUNDARY, ""
        )

    def words(self, ids: Iterable[int]) -> list[list[int]]:
        """The ids of each word, in order."""
        words: list[list[int]] = []
        opened = False
        for i in ids:
            if i < FIRST_PIECE:
                opened = False
                continue
            if self.opens(i) or not opened:
                words.append([])
            words[-1].append(i)
            opened = True
        return [word for word in words if any(self.pieces[i - FIRST_PIECE] not in ("", BOUNDARY) for i in word)]

    def opens(self, i: int) -> bool:
        """Whether a piece starts a word."""
        return i >= FIRST_PIECE and self.pieces[i - FIRST_PIECE].startswith(BOUNDARY)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the inverse is `from_dict`."""
        return {"sentencepiece": None if self.model is None else base64.b64encode(self.model).decode()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tokens:
        """Raises ValueError if `values` is not what `to_dict` gives."""
        model = values.get("sentencepiece", 0)
        if model is not None and not isinstance(model, str):
            raise ValueError(f"tokens: keys {sorted(values)}, expected 'sentencepiece' with base64 text or null")
        return cls(None if model is None else base64.b64decode(model, validate=True))


def speaker_token(number: int) -> int:
    """The token of the speaker who appeared as number 0, 1, …; the last token stands for all later ones."""
    return FIRST_SPEAKER + min(number, SPEAKERS - 1)


def speaker_of(tokens: Sequence[int]) -> int | None:
    """The last speaker named in `tokens`, None if none is."""
    named = [token - FIRST_SPEAKER for token in tokens if FIRST_SPEAKER <= token < FIRST_PIECE]
    return named[-1] if named else None
