"""Text → sentences of symbol ids: the one door from writing to what acoustic models read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from melstate.tts.text import symbols
from melstate.tts.text.lexicon import Lexicon, Phones
from melstate.tts.text.normalizer import normalize
from melstate.tts.text.sentences import split_long, split_sentences

_TOKEN = re.compile(r"[A-Za-z']++(?:-[A-Za-z']++)*+|[^\sA-Za-z']")


class Sentence(NamedTuple):
    """What one breath of speech is made from.

    Attributes:
        text: the sentence as written; of a sentence too long to speak in one go, the spoken words of this part.
        words: the spoken words, in order.
        ids: symbol ids (melstate.tts.text.symbols), BEGIN first, END last.
        word_of: for each id the index of its word, −1 for edges and punctuation.
    """

    text: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    word_of: tuple[int, ...]


class FrontEnd:
    """English text → sentences of symbol ids.

    Args:
        user_lexicon: a file of lines `word  PH ON EM1 ES`, or a mapping; it answers before the dictionary.
    """

    def __init__(self, user_lexicon: str | Path | Mapping[str, str] | None = None) -> None:
        self.lexicon = Lexicon(user_lexicon)

    def sentences(self, text: str) -> Iterator[Sentence]:
        """Sentences of a text in order. A text without words has none."""
        for sentence in split_sentences(text):
            tokens = self._tokens(sentence)
            parts = split_long([bool(phones) for _, phones in tokens], [max(1, len(phones)) for _, phones in tokens])
            for start, end in parts:
                part = tokens[start:end]
                words = " ".join(word for word, phones in part if phones)
                if words:
                    yield _assemble(sentence if len(parts) == 1 else words, part, last=end == len(tokens))

    def sentence(self, text: str) -> Sentence:
        """The whole text as one sentence, however long: what a recording's transcript needs.

        Raises:
            ValueError: the text holds no words.
        """
        tokens = self._tokens(text)
        if not any(phones for _, phones in tokens):
            raise ValueError(f"nothing to speak in {text[:60]!r}")
        return _assemble(text, tokens, last=True)

    def _tokens(self, text: str) -> list[tuple[str, Phones]]:
        """Spoken words with their phones, and punctuation marks with none."""
        tokens: list[tuple[str, Phones]] = []
        for match in _TOKEN.finditer(normalize(text)):
            token = match.group()
            if token[0].isalpha() or token.strip("'"):
                if token[0].isalpha() or token[0] == "'":
                    tokens.append((token, self._phones(token)))
                    continue
            mark = symbols.FOLD.get(token, token)
            if mark in symbols.PUNCTUATION:
                tokens.append((mark, ()))
        return tokens

    def _phones(self, word: str) -> Phones:
        found = self.lexicon.pronounce(word) or self.lexicon.pronounce(word.strip("'"))
        if found:
            return found
        letters = [self.lexicon.listed(letter + ".") for letter in word.lower() if letter.isalpha()]
        return tuple(phone for pronunciations in letters for phone in pronunciations[0])


def _assemble(text: str, tokens: list[tuple[str, Phones]], *, last: bool) -> Sentence:
    """Ids of the tokens. Of neighbouring marks the strongest stays; a part without a last mark gets a stop or comma."""
    words: list[str] = []
    ids = [symbols.ID[symbols.BEGIN]]
    word_of = [-1]
    mark = ""

    def close(mark: str) -> None:
        if mark and words:
            ids.append(symbols.ID[mark])
            word_of.append(-1)

    for token, phones in tokens:
        if not phones:
            mark = max(mark, token, key=lambda one: symbols.STRENGTH.get(one, -1))
            continue
        close(mark)
        mark = ""
        ids += symbols.to_ids(phones)
        word_of += [len(words)] * len(phones)
        words.append(token)
    close(mark or ("." if last else ","))
    ids.append(symbols.ID[symbols.END])
    word_of.append(-1)
    return Sentence(text, tuple(words), tuple(ids), tuple(word_of))
