"""CTC prefix beam search with a word language model, frame by frame: any split of the frames gives the same beams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import ClassVar, NamedTuple

import numpy as np

from melstate.asr.language_model import LanguageModel
from melstate.asr.reading import Layer, Reading
from melstate.asr.tokens import BLANK, BOUNDARY, FIRST_PIECE, Tokens

NEVER = -math.inf


class Prefix(NamedTuple):
    """One way to write what was heard so far.

    Attributes:
        tokens: written so far.
        blank, label: log-probability of all paths to it that end in a blank, or in its last token.
        language: weighted language score of its finished words, word bonus included.
        history: the language model's.
        word: letters of the unfinished last word.
    """

    tokens: tuple[int, ...]
    blank: float
    label: float
    language: float
    history: tuple[int, ...]
    word: str

    @property
    def acoustic(self) -> float:
        return add(self.blank, self.label)

    @property
    def score(self) -> float:
        return add(self.blank, self.label) + self.language


def add(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))


@dataclass(frozen=True)
class Beam:
    """Hannun et al. 2014 (arXiv:1408.2873), with the language model applied where words end.

    If the language model has a lexicon, only its words are written.

    Attributes:
        tokens: the vocabulary.
        language: scores words; None for none.
        width: prefixes kept.
        floor: log-probability under which a token is not tried at a frame; choices: tokens tried at most.
        weight: of the language model. bonus: added for every word.
    """

    layer: ClassVar[Layer] = "pieces"
    tokens: Tokens
    language: LanguageModel | None = None
    width: int = 16
    floor: float = -9.0
    choices: int = 20
    weight: float = 0.5
    bonus: float = 1.0

    def start(self) -> list[Prefix]:
        history = self.language.start if self.language else ()
        return [Prefix((), 0.0, NEVER, 0.0, history, "")]

    def advance(self, prefixes: Sequence[Prefix], log_probs: np.ndarray) -> list[Prefix]:
        """The best prefixes after the frames of log_probs (S, V), best first."""
        kept = list(prefixes)
        for frame in log_probs:
            kept = self._step(kept, frame)
        return kept

    def finish(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """The prefixes with their last words and the utterance's end scored, best first.

        Those whose last letters are no word yet are left out; if all are, they lose those letters.
        """
        done = []
        whole = [prefix for prefix in prefixes if self._is_word(prefix.word)]
        for prefix in whole or [self._without_last(prefix) for prefix in prefixes]:
            prefix = self._close(prefix)
            if self.language and prefix.tokens:
                end = self.weight * self.language.end(prefix.history)
                prefix = prefix._replace(language=prefix.language + end)
            done.append(prefix)
        return sorted(done, key=lambda prefix: -prefix.score)

    def readings(self, prefixes: Sequence[Prefix]) -> list[Reading]:
        """The finished prefixes as words, best first; of several spellings in pieces the best stands for all."""
        found: dict[tuple[str, ...], Reading] = {}
        for prefix in self.finish(prefixes):
            units = tuple(tuple(word) for word in self.tokens.words(prefix.tokens))
            words = tuple(self.tokens.decode(word) for word in units)
            found.setdefault(words, Reading(words, units, prefix.acoustic, prefix.language))
        return list(found.values())

    def _step(self, prefixes: list[Prefix], frame: np.ndarray) -> list[Prefix]:
        candidates = np.flatnonzero(frame > self.floor)
        if len(candidates) > self.choices:
            candidates = candidates[np.argpartition(-frame[candidates], self.choices)[: self.choices]]
        values = frame[candidates].tolist()
        blank = float(frame[BLANK])
        # tokens → [blank, label, the prefix it grew from, the token it grew by]
        grown: dict[tuple[int, ...], list] = {}
        for prefix in prefixes:
            total = prefix.acoustic
            last = prefix.tokens[-1] if prefix.tokens else BLANK
            entry = grown.setdefault(prefix.tokens, [NEVER, NEVER, prefix, None])
            entry[2], entry[3] = prefix, None
            entry[0] = add(entry[0], total + blank)
            for token, value in zip(candidates.tolist(), values, strict=True):
                if token == BLANK:
                    continue
                if token == last:
                    entry[1] = add(entry[1], prefix.label + value)
                    source = prefix.blank
                else:
                    source = total
                if source > NEVER and token >= FIRST_PIECE and self._may_grow(prefix, token):
                    longer = grown.setdefault((*prefix.tokens, token), [NEVER, NEVER, prefix, token])
                    longer[1] = add(longer[1], source + value)
        # The language model is asked only for those that may stay.
        ranked = nlargest(
            2 * self.width,
            (
                (add(item[0], item[1]) + item[2].language, number, tokens)
                for number, (tokens, item) in enumerate(grown.items())
            ),
        )
        kept = []
        for _, _, tokens in ranked:
            ends_blank, ends_label, source, token = grown[tokens]
            prefix = source if token is None else self._grow(source, token)
            kept.append(prefix._replace(tokens=tokens, blank=ends_blank, label=ends_label))
        kept.sort(key=lambda prefix: -prefix.score)
        return kept[: self.width]

    def _letters(self, token: int) -> str:
        return self.tokens.pieces[token - FIRST_PIECE].replace(BOUNDARY, "")

    def _is_word(self, word: str) -> bool:
        """Whether a word may end here; no letters at all may."""
        lexicon = self.language.lexicon if self.language else None
        return lexicon is None or not word or word in lexicon

    def _may_grow(self, prefix: Prefix, token: int) -> bool:
        """Whether the token can lead to a word, and leaves one behind if it opens the next."""
        lexicon = self.language.lexicon if self.language else None
        if lexicon is None:
            return True
        if self.tokens.opens(token):
            return self._is_word(prefix.word) and lexicon.begins(self._letters(token))
        return lexicon.begins(prefix.word + self._letters(token))

    def _without_last(self, prefix: Prefix) -> Prefix:
        """The prefix without the letters of its unfinished word."""
        tokens = list(prefix.tokens)
        while tokens and not self.tokens.opens(tokens.pop()):
            pass
        return prefix._replace(tokens=tuple(tokens), word="")

    def _grow(self, prefix: Prefix, token: int) -> Prefix:
        if self.tokens.opens(token):
            prefix = self._close(prefix)
        return prefix._replace(word=prefix.word + self._letters(token))

    def _close(self, prefix: Prefix) -> Prefix:
        """The prefix with its last word finished."""
        if not prefix.word:
            return prefix
        score, history = self.language.score(prefix.history, prefix.word) if self.language else (0.0, ())
        return prefix._replace(language=prefix.language + self.weight * score + self.bonus, history=history, word="")
