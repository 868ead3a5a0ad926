"""The word search equals the sum over all paths of the words' phones; its tree holds just the words it was given."""

import itertools
import math

import numpy as np
import pytest
import torch

from melstate.asr.language_model import LanguageModel
from melstate.asr.pronunciations import Pronunciations
from melstate.asr.word_beam import WordBeam

SPOKEN = {"a": [(1,)], "ab": [(1, 2), (2, 1)], "aa": [(1, 1)], "bee": [(2,)], "be": [(2,)], "mute": [()]}
LANGUAGE = LanguageModel.train(["a bee", "ab a", "be a be", "aa"])
PHONES = 3


def log_probs(frames, seed):
    return torch.randn(frames, PHONES, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(-1).numpy()


def collapse(path):
    return tuple(phone for phone, _ in itertools.groupby(path) if phone)


def all_phones(frames):
    """Log-probability of every phone sequence."""
    totals = {}
    for path in itertools.product(range(PHONES), repeat=len(frames)):
        score = sum(float(frames[t, s]) for t, s in enumerate(path))
        totals[collapse(path)] = np.logaddexp(totals.get(collapse(path), -math.inf), score)
    return totals


def readings(phones):
    """Every way to read a phone sequence as words."""
    if not phones:
        return [()]
    found = []
    for word, ways in SPOKEN.items():
        for way in ways:
            if way and phones[: len(way)] == way:
                found += [(word, *rest) for rest in readings(phones[len(way) :])]
    return found


def scored(words, weight, bonus):
    history, total = LANGUAGE.start, 0.0
    for word in words:
        value, history = LANGUAGE.score(history, word)
        total += weight * value + bonus
    return total + (weight * LANGUAGE.end(history) if words else 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_without_a_language_model_a_wide_search_is_the_sum_over_all_paths(seed):
    """With histories as long as anything said, nothing is merged but what is the same."""
    language = LanguageModel.train(["a bee", "ab a", "be a be", "aa"], order=9)
    beam = WordBeam(Pronunciations.build(SPOKEN), language, 10**6, 1e9, -1e9, weight=0.0, bonus=0.0)
    frames = log_probs(6, seed)
    expected = {}
    for phones, score in all_phones(frames).items():
        for words in readings(phones):
            expected.setdefault(words, []).append(score)
    found = {r.words: r.score for r in beam.readings(beam.advance(beam.start(), frames))}
    assert set(found) == set(expected)
    for words, score in found.items():
        # ways to speak the same words that end at different nodes are not summed, the best of them counts
        assert max(expected[words]) - 1e-5 <= score <= np.logaddexp.reduce(expected[words]) + 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_the_best_words_are_found(seed):
    frames = log_probs(6, 10 + seed)
    best = {}
    for phones, acoustic in all_phones(frames).items():
        for words in readings(phones):
            best[words] = max(best.get(words, -math.inf), acoustic + scored(words, 0.8, 0.5))
    beam = WordBeam(Pronunciations.build(SPOKEN), LANGUAGE, 10**6, 1e9, -1e9, weight=0.8, bonus=0.5)
    found = beam.readings(beam.advance(beam.start(), frames))
    assert found[0].score >= max(best.values()) - 1e-4
    narrow = WordBeam(Pronunciations.build(SPOKEN), LANGUAGE, 60, 12.0, -9.0, weight=0.8, bonus=0.5)
    assert narrow.readings(narrow.advance(narrow.start(), frames))[0].words == found[0].words


@pytest.mark.parametrize("cuts", [[20], [1] * 20, [7, 0, 13]])
def test_any_split_of_the_frames_gives_the_same(cuts):
    frames = log_probs(20, 5)
    beam = WordBeam(Pronunciations.build(SPOKEN), LANGUAGE, 30)
    kept = beam.start()
    for part in np.split(frames, np.cumsum(cuts)[:-1]):
        kept = beam.advance(kept, part)
    assert kept == beam.advance(beam.start(), frames) and len(kept) <= 30


def test_silence_says_nothing():
    frames = np.full((9, PHONES), -20.0, np.float32)
    frames[:, 0] = 0.0
    beam = WordBeam(Pronunciations.build(SPOKEN), LANGUAGE)
    assert beam.readings(beam.advance(beam.start(), frames))[0] == ((), (), 0.0, 0.0)


def test_the_tree_comes_back_from_its_file(tmp_path):
    tree = Pronunciations.build(SPOKEN)
    assert tree.words == ("a", "aa", "ab", "be", "bee")
    tree.save(tmp_path / "p.npz")
    again = Pronunciations.load(tmp_path / "p.npz")
    assert (again.words, again.phones, again.ends) == (tree.words, tree.phones, tree.ends)
    roots = dict(tree.children(0))
    first = roots[1]
    assert sorted(roots) == [1, 2] and again.children(0) == tree.children(0)
    assert sorted(dict(tree.children(first))) == [1, 2] and again.children(first) == tree.children(first)
    assert tree.phones_to(dict(tree.children(first))[2]) == (1, 2) and tree.phones_to(0) == ()
    scores = np.array([-5.0, -1.0, -2.0, -4.0, -3.0])
    below = tree.best_below(scores)
    assert below[0] == -1.0 and below[first] == -1.0 and below[roots[2]] == -2.0


def test_what_is_no_tree_is_refused(tmp_path):
    for spoken, message in (({"a": [()]}, "no word with"), ({"a": [(0,)]}, "phone 0 of 'a'"), ({"a": [(256,)]}, "256")):
        with pytest.raises(ValueError, match=message):
            Pronunciations.build(spoken)
    with pytest.raises(FileNotFoundError, match="no such"):
        Pronunciations.load(tmp_path / "p.npz")
    (tmp_path / "p.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="export it again"):
        Pronunciations.load(tmp_path / "p.npz")
    with pytest.raises(ValueError, match="before its parent"):
        Pronunciations(["a"], np.array([0, 1]), np.array([0, 1]), np.array([[1, 0]]))
