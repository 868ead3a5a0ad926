"""A small word n-gram that holds no word impossible: interpolated Kneser-Ney over words, and over letters for the rest.

Only counts of the longest n-grams are stored; everything else follows from them. Few transcripts make a small file.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from melstate.asr.arrays import pack_words, read_arrays, unpack_words, write_arrays
from melstate.asr.backoff import END, BackoffModel
from melstate.asr.lexicon import Lexicon

DISCOUNT = 0.75
EDGE = 0  # the symbol before a sequence starts, and the one that ends it
ALPHABET = "abcdefghijklmnopqrstuvwxyz'"
MOST_MISSING = 1e-7  # floor of a word's spelling probability
MOST_KEPT = 20_000  # scores at hand, some 10 MB: hours of speech must not take more memory than minutes


class NGram:
    """Interpolated Kneser-Ney over integer symbols ≥ 1 (0 is the edge).

    Args:
        counts: n-grams of the full order, padded with edges at the start, and how often each was seen.
        order: n ≥ 1.
    Source: Kneser and Ney 1995; Chen and Goodman 1998, section 4.1.6 with one discount.
    """

    def __init__(self, counts: Mapping[tuple[int, ...], int], order: int) -> None:
        if order < 1 or any(len(gram) != order for gram in counts):
            raise ValueError(f"n-gram: counts must be of order {order} >= 1")
        self.order, self.counts = order, dict(counts)
        # tables[n]: n-gram → count; below the full order the number of different symbols seen before it
        self.tables: list[dict[tuple[int, ...], int]] = [{} for _ in range(order + 1)]
        self.tables[order] = self.counts
        for n in range(order - 1, 0, -1):
            self.tables[n] = dict(Counter(gram[1:] for gram in self.tables[n + 1]))
        self.totals: dict[tuple[int, ...], int] = defaultdict(int)
        self.kinds: dict[tuple[int, ...], int] = defaultdict(int)
        for table in self.tables[1:]:
            for gram, count in table.items():
                self.totals[gram[:-1]] += count
                self.kinds[gram[:-1]] += 1

    @classmethod
    def train(cls, sequences: Iterable[Sequence[int]], order: int) -> NGram:
        counts: Counter[tuple[int, ...]] = Counter()
        for sequence in sequences:
            padded = (EDGE,) * (order - 1) + tuple(sequence) + (EDGE,)
            counts.update(padded[i : i + order] for i in range(len(padded) - order + 1))
        return cls(counts, order)

    def probability(self, history: Sequence[int], symbol: int, base: float) -> float:
        """P(symbol | history); `base` is its probability where nothing was seen at all."""
        history = tuple(history)[-(self.order - 1) :] if self.order > 1 else ()
        probability = base
        for n in range(len(history) + 1):
            context = history[len(history) - n :]
            total = self.totals.get(context, 0)
            if not total:
                if n:
                    break
                continue
            # A shorter context than the order's own n-grams holds the lower order's counts.
            count = self.tables[n + 1].get((*context, symbol), 0)
            kept = max(count - DISCOUNT, 0.0) / total
            probability = kept + DISCOUNT * self.kinds[context] / total * probability
        return probability


class LanguageModel:
    """Natural-log probabilities of words given the words before; unseen words by their letters.

    Args:
        words: known words; a word's symbol is its place + 1.
        ngram: over those symbols.
        letters: over the letters' places in ALPHABET + 1.
        lexicon: the words that may be written, seen in sentences or not; None for any.
        general: a model of the language at large, mixed in where it is given.
        share: of `general` in the mixture, in [0, 1).
    Raises: ValueError: another share.
    """

    def __init__(
        self,
        words: Sequence[str],
        ngram: NGram,
        letters: NGram,
        lexicon: Lexicon | None = None,
        general: BackoffModel | None = None,
        share: float = 0.6,
    ) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"language model: the share of general language must be in [0, 1), got {share}")
        self.words, self.ngram, self.letters, self.lexicon = tuple(words), ngram, letters, lexicon
        self.general, self.share = general, share if general else 0.0
        self._scored: dict[tuple[tuple[int, ...], str], tuple[float, tuple[int, ...]]] = {}
        self.symbols = {word: number for number, word in enumerate(words, start=1)}
        self._spelled: dict[str, float] = {}

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        order: int = 3,
        letter_order: int = 5,
        spellings: Iterable[str] = (),
        general: BackoffModel | None = None,
        share: float = 0.6,
    ) -> LanguageModel:
        """Learn from normalised transcripts.

        Args:
            spellings: a dictionary: it teaches how words are spelled, and no word outside it and the transcripts is
                written; without it any word is.
            general, share: see above.
        """
        texts = [sentence.split() for sentence in sentences]
        words = sorted({word for text in texts for word in text})
        symbols = {word: number for number, word in enumerate(words, start=1)}
        ngram = NGram.train(([symbols[word] for word in text] for text in texts), order)
        further = set(spellings)
        known = sorted({*words, *further})
        letters = NGram.train((_letters(word) for word in known), letter_order)
        return cls(words, ngram, letters, Lexicon(known) if further else None, general, share)

    @property
    def start(self) -> tuple[int, ...]:
        """The history of an utterance's first word: the sentences' symbols, then the general model's."""
        return (EDGE,) * (self.ngram.order - 1) + (self.general.start if self.general else ())

    def symbol(self, word: str) -> int:
        """The word's symbol, −1 for all words that training never saw."""
        return self.symbols.get(word, -1)

    def score(self, history: tuple[int, ...], word: str) -> tuple[float, tuple[int, ...]]:
        """log P(word | history), and the history with the word."""
        key = history, word
        found = self._scored.get(key)
        if found is None:
            if len(self._scored) >= MOST_KEPT:
                self._scored.clear()
            found = self._scored[key] = self._score(history, word)
        return found

    def _score(self, history: tuple[int, ...], word: str) -> tuple[float, tuple[int, ...]]:
        symbol, own = self.symbol(word), self.ngram.order - 1
        probability = self.ngram.probability(history[:own], symbol, self.base(word))
        kept = (*history[:own], symbol)[-own:] if own else ()
        if self.general is None:
            return math.log(probability), kept
        common, before = self.general.symbol(word), history[own:]
        return self._mixed(probability, before, common), (*kept, *before[1:], common)

    def _mixed(self, own: float, history: tuple[int, ...], symbol: int) -> float:
        """The logarithm of both models' probabilities, mixed; a word that the general one lacks has none by it."""
        assert self.general is not None
        common = self.general.log_probability(history, symbol)
        return math.log((1 - self.share) * own + self.share * math.exp(common))

    def unigram(self, word: str) -> float:
        """log P(word) after nothing known."""
        own = self.ngram.probability((), self.symbol(word), self.base(word))
        return self._mixed(own, (), self.general.symbol(word)) if self.general else math.log(own)

    def end(self, history: tuple[int, ...]) -> float:
        """log P(the utterance ends | history)."""
        length = self.ngram.order - 1
        own = self.ngram.probability(history[:length], EDGE, MOST_MISSING)
        return self._mixed(own, history[length:], END) if self.general else math.log(own)

    def base(self, word: str) -> float:
        """The probability of a word that no sentence had."""
        if self.general is None or self.general.symbol(word) == self.general.unknown:
            return self.spelling(word)
        return math.exp(self.general.log_probability((), self.general.symbol(word)))

    def spelling(self, word: str) -> float:
        """The probability of a word by its letters."""
        if word not in self._spelled:
            if len(self._spelled) >= MOST_KEPT:
                self._spelled.clear()
            probability, history = 1.0, (EDGE,) * (self.letters.order - 1)
            for letter in (*_letters(word), EDGE):
                probability *= self.letters.probability(history, letter, 1 / (len(ALPHABET) + 1))
                history = (*history, letter)
            self._spelled[word] = max(probability, 1e-30)
        return self._spelled[word]

    def log_probability(self, words: Sequence[str]) -> float:
        """Of an utterance of these words and its end; 0 for none."""
        total, history = 0.0, self.start
        for word in words:
            score, history = self.score(history, word)
            total += score
        return total + self.end(history) if words else 0.0

    def perplexity(self, sentences: Iterable[str]) -> float:
        """Per word and sentence end."""
        total, count = 0.0, 0
        for sentence in sentences:
            words = sentence.split()
            total += self.log_probability(words)
            count += len(words) + 1
        return math.exp(-total / max(count, 1))

    def save(self, path: str | Path) -> None:
        """Write an .npz of words and counts, whole or not at all."""
        arrays: dict[str, np.ndarray] = {"words": pack_words(self.words)}
        if self.lexicon is not None:
            arrays["lexicon"] = pack_words(self.lexicon.words)
        if self.general is not None:
            arrays["share"] = np.array(self.share)
            arrays |= {f"general_{name}": array for name, array in self.general.to_arrays().items()}
        for name, table in (("words", self.ngram), ("letters", self.letters)):
            grams = sorted(table.counts)
            arrays[f"{name}_grams"] = np.array(grams, np.uint16 if len(self.words) < 65535 else np.uint32)
            arrays[f"{name}_counts"] = np.array([table.counts[gram] for gram in grams], np.uint32)
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> LanguageModel:
        """Raises: FileNotFoundError: no such file. ValueError: not a language model."""
        return read_arrays(path, "language model", "export it again", cls._from_arrays)

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> LanguageModel:
        lexicon = Lexicon(unpack_words(arrays["lexicon"])) if "lexicon" in arrays else None
        kept = {name.removeprefix("general_"): arrays[name] for name in arrays if name.startswith("general_")}
        general = BackoffModel.from_arrays(kept) if kept else None
        share = float(arrays["share"]) if kept else 0.0
        tables = [_table(arrays, name) for name in ("words", "letters")]
        return cls(unpack_words(arrays["words"]), tables[0], tables[1], lexicon, general, share)


def _table(arrays: Mapping[str, np.ndarray], name: str) -> NGram:
    grams, counts = arrays[f"{name}_grams"], arrays[f"{name}_counts"]
    if grams.ndim != 2 or len(grams) != len(counts):
        raise ValueError(f"{len(grams)} n-grams of {name} but {len(counts)} counts")
    rows = zip(map(tuple, grams.tolist()), counts.tolist(), strict=True)
    return NGram(dict(rows), grams.shape[1])


def _letters(word: str) -> list[int]:
    return [ALPHABET.index(letter) + 1 for letter in word if letter in ALPHABET]
