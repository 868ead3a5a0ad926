"""Text → sentences of symbol ids: the one door from writing to what acoustic models read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from melstate.tts.text import homographs, symbols
from melstate.tts.text.characters import clean
from melstate.tts.text.lexicon import Lexicon, Phones, add_s
from melstate.tts.text.normalizer import spoken
from melstate.tts.text.rules import LETTER_A
from melstate.tts.text.sentences import split_long, split_sentences

# Stands for phones that the text or the user's lexicon gives while the rest is normalised; cleaned text cannot hold it.
GIVEN = "\ue000"
# Longer runs of letters are no words; they are read in parts of this size.
MAX_LETTERS = 28
# Guesses remembered; a hostile text must not grow them without end.
MAX_GUESSED = 20_000

_TOKEN = re.compile(r"[A-Za-z']++(?:-[A-Za-z']++)*+|[^\sA-Za-z']")
_OUTER = "\"'()[]{},.;:!?—–…"


class Sentence(NamedTuple):
    """What one breath of speech is made from.

    Attributes:
        text: the sentence with its characters cleaned; of one too long to speak in one go, this part's words.
        words: the spoken words, in order.
        ids: symbol ids (melstate.tts.text.symbols), BEGIN first, END last.
        word_of: for each id the index of its word, −1 for edges and punctuation.
    """

    text: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    word_of: tuple[int, ...]


class Token(NamedTuple):
    """A spoken word with its phones, or a punctuation mark with none."""

    text: str
    phones: Phones


class FrontEnd:
    """English text → sentences of symbol ids.

    Text may hold phones in double brackets: `[[HH AH0 L OW1]]`.

    Args:
        user_lexicon: a file of lines `word  PH ON EM1 ES`, or a mapping; it answers before any rule.
    """

    def __init__(self, user_lexicon: str | Path | Mapping[str, str] | None = None) -> None:
        self.lexicon = Lexicon(user_lexicon)
        self._guessed: dict[str, Phones] = {}

    def sentences(self, text: str) -> Iterator[Sentence]:
        """Sentences of a text in order, each at most about sixty words; a text without words has none.

        Raises:
            ValueError: double brackets hold something that is not phones, which is named.

        Warns:
            TextWarning: once, naming the first kinds of characters left out or read by their Latin spelling.
        """
        for sentence in split_sentences(clean(text)):
            tokens = self._tokens(sentence)
            parts = split_long([bool(phones) for _, phones in tokens], [max(1, len(phones)) for _, phones in tokens])
            for start, end in parts:
                part = tokens[start:end]
                words = " ".join(word for word, phones in part if phones)
                if words:
                    yield _assemble(sentence if len(parts) == 1 else words, part, last=end == len(tokens))

    def sentence(self, text: str) -> Sentence:
        """The whole text as one sentence, however long: what the transcript of a recording needs.

        Raises:
            ValueError: the text holds no words, or double brackets hold something that is not phones.
        """
        cleaned = clean(text)
        tokens = self._tokens(cleaned)
        if not any(phones for _, phones in tokens):
            raise ValueError(f"nothing to speak in {text[:60]!r}")
        return _assemble(cleaned, tokens, last=True)

    def _tokens(self, sentence: str) -> list[Token]:
        """Spoken words with their phones, and punctuation marks with none."""
        marked, given = self._take_given(sentence)
        words = [word for match in _TOKEN.finditer(spoken(marked)) for word in self._split(match.group())]
        context = ["" if word in symbols.PUNCTUATION else word for word in words]
        known = [self._known(context, index) for index in range(len(words))]
        unknown = [word for word, phones in zip(words, known, strict=True) if phones is None and word != GIVEN]
        guessed = dict(zip(unknown, self._guess(unknown), strict=True))
        waiting = iter(given)
        return [
            next(waiting)
            if word == GIVEN
            else Token(word.replace(LETTER_A, "A"), guessed[word] if phones is None else phones)
            for word, phones in zip(words, known, strict=True)
        ]

    def _take_given(self, sentence: str) -> tuple[str, list[Token]]:
        """The sentence with GIVEN for every `[[phones]]` and every word of the user's, and what stood there."""
        given: list[Token] = []
        out: list[str] = []
        position = 0
        while True:
            opened = sentence.find("[[", position)
            closed = sentence.find("]]", opened + 2) if opened >= 0 else -1
            # A bracket that is never closed is punctuation.
            out.append(self._take_user_words(sentence[position : opened if closed >= 0 else None], given))
            if closed < 0:
                return "".join(out), given
            inside = sentence[opened + 2 : closed]
            try:
                phones = symbols.parse_phones(inside)
            except ValueError as error:
                raise ValueError(f"[[{inside[:40]}]]: {error}") from error
            given.append(Token(f"[[{inside}]]", phones))
            out.append(f" {GIVEN} ")
            position = closed + 2

    def _take_user_words(self, text: str, given: list[Token]) -> str:
        if not self.lexicon.user:
            return text
        out = []
        for written in text.split(" "):
            inner = written.strip(_OUTER)
            stem = inner.removesuffix("'s")
            phones = self.lexicon.of_user(inner) or self.lexicon.of_user(stem)
            if phones is None:
                out.append(written)
                continue
            given.append(Token(inner, phones if self.lexicon.of_user(inner) else add_s(phones)))
            start = written.index(inner)
            out.append(f"{written[:start]} {GIVEN} {written[start + len(inner) :]}")
        return " ".join(out)

    def _split(self, token: str) -> Iterator[str]:
        """Words and marks of one match of _TOKEN; silent characters fall."""
        if token in (GIVEN, LETTER_A):
            yield token
        elif not (token[0].isalpha() or token[0] == "'"):
            mark = symbols.FOLD.get(token, token)
            if mark in symbols.PUNCTUATION:
                yield mark
        elif len(token) <= MAX_LETTERS and self.lexicon.pronounce(token):
            yield token
        elif "-" in token:
            for part in token.split("-"):
                yield from self._split(part) if part else ()
        else:
            word = token.strip("'")
            if word.count("'") > 1:
                yield from (part for part in word.split("'") if part)
            else:
                yield from (word[start : start + MAX_LETTERS] for start in range(0, len(word), MAX_LETTERS))

    def _known(self, words: list[str], index: int) -> Phones | None:
        """Phones of a word that needs no guess; none at all for a mark."""
        word = words[index]
        if not word:
            return ()
        if word == GIVEN:
            return None
        if word == LETTER_A or (word == "A" and index and words[index - 1] and not _article(words, index)):
            return ("EY1",)
        return homographs.choose(self.lexicon, words, index) or self.lexicon.pronounce(word)

    def _guess(self, words: list[str]) -> list[Phones]:
        """Phones of words that no dictionary holds: the network's, or their letters where it says nothing."""
        letters = {word: word.lower().strip("'") for word in words}
        missing = sorted({one for one in letters.values() if one not in self._guessed})
        if missing:
            # Torch is loaded for the first unknown word, not before.
            from melstate.tts.text import g2p

            if len(self._guessed) > MAX_GUESSED:
                self._guessed.clear()
            for one, phones in zip(missing, g2p.predict(g2p.shipped(), missing), strict=True):
                self._guessed[one] = phones if any(map(symbols.is_vowel, phones)) else self._spell(one)
        return [self._guessed[letters[word]] for word in words]

    def _spell(self, word: str) -> Phones:
        names = [self.lexicon.listed(letter + ".") for letter in word if letter.isalpha()]
        return tuple(phone for name in names for phone in name[0])


def _article(words: list[str], index: int) -> bool:
    """Whether a capital A amid a sentence starts a title ("in A Tale") and is not the letter ("vitamin A is")."""
    after = words[index + 1] if index + 1 < len(words) else ""
    return after[:1].isupper() and len(after) > 1


def _assemble(text: str, tokens: list[Token], *, last: bool) -> Sentence:
    """Ids of the tokens. Of neighbouring marks the strongest stays; a part without a last mark gets a stop or comma."""
    words: list[str] = []
    ids = [symbols.ID[symbols.BEGIN]]
    word_of = [-1]
    mark = ""
    for token, phones in tokens:
        if not phones:
            mark = max(mark, token, key=lambda one: symbols.STRENGTH.get(one, -1))
            continue
        if mark and words:
            ids.append(symbols.ID[mark])
            word_of.append(-1)
        mark = ""
        ids += symbols.to_ids(phones)
        word_of += [len(words)] * len(phones)
        words.append(token)
    mark = mark or ("." if last else ",")
    return Sentence(text, tuple(words), (*ids, symbols.ID[mark], symbols.ID[symbols.END]), (*word_of, -1, -1))
