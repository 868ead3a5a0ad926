"""The n-grams of general English that are worth their bytes, from the model that comes with pocketsphinx.

    python -m melstate.recipes.prune_ngrams runs/english.npz --grams 800000 --words 40000 \\
        --dictionary ../shared/data/cmudict/cmudict.dict

An n-gram is kept by how much it changes what is expected there, weighed by how often it comes (Seymore and Rosenfeld
1996). The file is for `melstate export-recognizer --english`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from melstate.asr.arrays import read_arrays, write_arrays
from melstate.asr.backoff import END, FIRST_WORD, START, BackoffModel, encode, pack
from melstate.recipes.sphinx_model import NGrams, read_sphinx
from melstate.recipes.vocabulary import read_dictionary

MARKS = {"<s>": START, "</s>": END}


def restrict(ngrams: NGrams, dictionary: Iterable[str], keep: int) -> NGrams:
    """The n-grams over the `keep` most common words of the dictionary; symbols as BackoffModel has them, in rising
    order."""
    known = set(dictionary) - set(MARKS)
    common = [ngrams.words[i] for i in np.argsort(-ngrams.logs[1], kind="stable")]
    words = [word for word in common if word in known][:keep]
    symbols = MARKS | {word: number for number, word in enumerate(words, start=FIRST_WORD)}
    symbol = np.array([symbols.get(word, -1) for word in ngrams.words])
    tables, logs = {}, {}
    for n, table in ngrams.tables.items():
        table = symbol[table]
        kept = (table >= 0).all(1) & (table[:, -1] != START) & (table[:, :-1] != END).all(1)
        rising = np.argsort(pack(table[kept]))
        tables[n], logs[n] = table[kept][rising], ngrams.logs[n][kept][rising]
    return NGrams(words, tables, logs)


def log_probabilities(ngrams: NGrams, order: int, table: np.ndarray) -> np.ndarray:
    """(n, order) → (n,) natural logs by the n-grams of that order and below, without what histories leave over."""
    keys, known = pack(table), pack(ngrams.tables[order])
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    there = known[place] == keys
    if order == 1:
        return np.where(there, ngrams.logs[1][place], ngrams.logs[1].min())
    return np.where(there, ngrams.logs[order][place], log_probabilities(ngrams, order - 1, table[:, 1:]))


def prune(ngrams: NGrams, count: int) -> BackoffModel:
    """The `count` n-grams of two and three words that matter most; all single words stay."""
    worth = {}
    for n in (2, 3):
        table, logs = ngrams.tables[n], ngrams.logs[n]
        # How often the history comes: a sentence begins as often as one ends.
        history = np.where(table[:, :-1] == START, END, table[:, :-1])
        often = log_probabilities(ngrams, 1, history[:, :1])
        if n == 3:
            often = often + log_probabilities(ngrams, 2, table[:, :2])
        worth[n] = np.exp(often + logs) * (logs - log_probabilities(ngrams, n - 1, table[:, 1:]))
    ranked = np.sort(np.concatenate([worth[2], worth[3]]))[::-1]
    least = ranked[count - 1] if 0 < count <= len(ranked) else np.inf if count < 1 else -np.inf
    kept = {n: worth[n] >= least for n in worth} | {1: np.ones(len(ngrams.logs[1]), bool)}
    tables = {n: ngrams.tables[n][kept[n]] for n in (1, 2, 3)}
    return BackoffModel(ngrams.words, tables, {n: encode(ngrams.logs[n][kept[n]]) for n in (1, 2, 3)})


def read_ngrams(path: str | Path) -> BackoffModel:
    """What this recipe wrote. Raises: FileNotFoundError. ValueError: another file."""
    return read_arrays(path, "n-grams", "python -m melstate.recipes.prune_ngrams makes them", BackoffModel.from_arrays)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", help="the .npz to write")
    add("--model", metavar="FILE", help="another CMU Sphinx trie of order 3")
    add("--dictionary", required=True, metavar="FILE", help="in the form of CMUdict; other words are left out")
    add("--words", type=int, default=40_000, help="the most common ones that are kept (default 40,000)")
    add("--grams", type=int, default=800_000, help="n-grams of two and three words that are kept (default 800,000)")
    args = parser.parse_args(argv)
    try:
        from pocketsphinx import get_model_path

        found = read_sphinx(args.model or Path(get_model_path()) / "en-us" / "en-us.lm.bin")
        model = prune(restrict(found, read_dictionary(args.dictionary), args.words), args.grams)
    except (ValueError, OSError) as error:
        print(f"prune-ngrams: {error}", file=sys.stderr)
        return 1
    size = write_arrays(args.output, model.to_arrays())
    counts = ", ".join(f"{len(model.grams[n]):,} of {n}" for n in (1, 2, 3))
    print(f"{args.output}: {size / 1e6:.2f} MB, {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
