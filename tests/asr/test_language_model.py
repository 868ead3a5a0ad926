"""The n-gram is a distribution, prefers what it saw, and finds no word impossible."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melstate.asr import language_model
from melstate.asr.backoff import END, BackoffModel, encode
from melstate.asr.language_model import EDGE, LanguageModel, NGram
from melstate.asr.lexicon import Lexicon

TEXTS = ["the cat sat on the mat", "the dog sat on the cat", "a cat on a mat", "don't sit on the dog"] * 2


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_in_every_history(order):
    rng = np.random.default_rng(0)
    ngram = NGram.train([rng.integers(1, 6, size=rng.integers(1, 9)).tolist() for _ in range(30)], order)
    symbols = range(7)  # 0 … 5 were seen, 6 never
    for history in [(EDGE, EDGE), (1, 2), (6, 3), (6, 6)]:
        total = sum(ngram.probability(history, symbol, 1 / 7) for symbol in symbols)
        assert total == pytest.approx(1.0, abs=1e-9)
        assert all(ngram.probability(history, symbol, 1 / 7) > 0 for symbol in symbols)


def test_seen_sequences_are_likelier():
    model = LanguageModel.train(TEXTS)
    history = model.start
    for word in ("the", "cat"):
        _, history = model.score(history, word)
    sat, mat = (model.score(history, word)[0] for word in ("sat", "mat"))
    assert sat > mat > model.score(history, "zyx")[0] > -80
    assert model.score(history, "cats")[0] > model.score(history, "xqzv")[0]
    assert model.perplexity(TEXTS) < model.perplexity(["mat the on dog"]) < model.perplexity(["zebra quilts vex"])


def test_further_spellings_make_their_like_likelier():
    plain, taught = (LanguageModel.train(TEXTS, spellings=words) for words in ([], ["zebra", "zebu", "zest"]))
    assert taught.spelling("zebras") > plain.spelling("zebras")


def test_what_is_kept_at_hand_is_bounded_and_changes_nothing(monkeypatch):
    words = [f"{a}{b}" for a in "bcdfg" for b in "aeiou"]
    free = LanguageModel.train(TEXTS)
    expected = [free.score(free.start, word) for word in words]
    monkeypatch.setattr(language_model, "MOST_KEPT", 4)
    model = LanguageModel.train(TEXTS)
    for word, score in zip(words, expected, strict=True):
        assert model.score(model.start, word) == score
        assert len(model._scored) <= 4 and len(model._spelled) <= 4
    assert len(free._scored) == len(words)


def test_it_comes_back_from_its_file(tmp_path):
    model = LanguageModel.train(TEXTS)
    model.save(tmp_path / "lm.npz")
    again = LanguageModel.load(tmp_path / "lm.npz")
    assert again.perplexity(["the cat sat", "unseen words"]) == model.perplexity(["the cat sat", "unseen words"])
    assert math.isfinite(again.end(again.start))


def test_a_dictionary_is_kept_and_closes_the_vocabulary(tmp_path):
    assert LanguageModel.train(TEXTS).lexicon is None
    model = LanguageModel.train(TEXTS, spellings=["zebra", "zest"])
    model.save(tmp_path / "lm.npz")
    for lexicon in (model.lexicon, LanguageModel.load(tmp_path / "lm.npz").lexicon):
        assert "zebra" in lexicon and "cat" in lexicon and "zeb" not in lexicon and "" not in lexicon
        assert lexicon.begins("zeb") and lexicon.begins("") and not lexicon.begins("zebras")
    with pytest.raises(ValueError, match="no words"):
        Lexicon([""])


@given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=1), st.text("abc", max_size=4))
def test_a_lexicon_knows_every_beginning(words, letters):
    lexicon = Lexicon(words)
    for _ in range(2):
        assert lexicon.begins(letters) == any(word.startswith(letters) for word in words)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such language model"):
        LanguageModel.load(tmp_path / "lm.npz")
    (tmp_path / "lm.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="export it again"):
        LanguageModel.load(tmp_path / "lm.npz")
    np.savez(tmp_path / "lm.npz", words=np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="export it again"):
        LanguageModel.load(tmp_path / "lm.npz")


def english():
    """the cat sat (often), a zebra (rare)."""
    words = ["the", "cat", "sat", "a", "zebra"]
    grams = {1: np.arange(1, 7)[:, None], 2: np.array([[0, 2], [2, 3], [5, 6]]), 3: np.array([[0, 2, 3], [2, 3, 4]])}
    log_probs = {1: np.log([0.1, 0.4, 0.2, 0.1, 0.1, 0.1]), 2: np.log([0.5, 0.6, 0.3]), 3: np.log([0.7, 0.8])}
    return BackoffModel(words, grams, {n: encode(values) for n, values in log_probs.items()})


def test_general_language_is_mixed_in(tmp_path):
    general = english()
    model = LanguageModel.train(TEXTS, spellings=["zebra", "zest"], general=general, share=0.25)
    plain = LanguageModel.train(TEXTS, spellings=["zebra", "zest"])
    history, own, other = model.start, plain.start, general.start
    for word in ("the", "cat", "sat", "zest", "zebra"):
        symbol = general.symbol(word)
        expected = general.log_probability(other, symbol)
        value, history = model.score(history, word)
        ngram = plain.ngram.probability(own, plain.symbol(word), model.base(word))
        assert value == pytest.approx(math.log(0.75 * ngram + 0.25 * math.exp(expected)))
        _, own = plain.score(own, word)
        other = (*other, symbol)[-2:]
    end = 0.75 * math.exp(plain.end(own)) + 0.25 * math.exp(general.log_probability(other, END))
    assert model.end(history) == pytest.approx(math.log(end))
    assert model.base("zebra") == math.exp(general.log_probability((), 6)) and model.base("zest") == plain.base("zest")
    assert general.symbol("zest") == general.unknown and model.score(model.start, "zest")[0] > -30
    model.save(tmp_path / "lm.npz")
    again = LanguageModel.load(tmp_path / "lm.npz")
    assert again.perplexity(["the cat sat", "a zebra zest"]) == pytest.approx(
        model.perplexity(["the cat sat", "a zebra zest"]), rel=1e-9
    )
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1"):
        LanguageModel.train(TEXTS, general=general, share=1.0)
