"""Word error rate: the definition, jiwer, and what intervals promise."""

import functools
import random

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.asr.alignment import align, distance
from melstate.asr.scoring import WordErrors, bootstrap, count, word_errors, words

sequences = st.lists(st.sampled_from("abcd"), max_size=12)
times = st.tuples(st.integers(0, 20), st.integers(0, 5)).map(lambda t: (t[0] / 2, (t[0] + t[1]) / 2))


def by_definition(reference, hypothesis, allowed):
    """(edits, substitutions) by Levenshtein's recursion of 1966, with pairs that are not allowed left out."""

    @functools.cache
    def edits(i, j):
        if not i or not j:
            return i + j, 0
        gap = min(edits(i - 1, j), edits(i, j - 1))
        best = gap[0] + 1, gap[1]
        if allowed(i - 1, j - 1):
            pair, different = edits(i - 1, j - 1), reference[i - 1] != hypothesis[j - 1]
            best = min(best, (pair[0] + different, pair[1] + different))
        return best

    return edits(len(reference), len(hypothesis))


def check_path(pairs, n, m):
    assert [i for i, _ in pairs if i is not None] == list(range(n))
    assert [j for _, j in pairs if j is not None] == list(range(m))


@settings(max_examples=80, deadline=None)
@given(sequences, sequences, st.sampled_from([1, 16, 1 << 20]))
def test_alignment_is_shortest_whole_and_split(reference, hypothesis, cells):
    least = by_definition(reference, hypothesis, lambda i, j: True)
    pairs = align(reference, hypothesis, table_cells=cells)
    check_path(pairs, len(reference), len(hypothesis))
    found = count(pairs, reference, hypothesis)
    assert (found.errors, found.substitutions) == least
    assert distance(reference, hypothesis) == least[0]
    assert found.deletions - found.insertions == len(reference) - len(hypothesis)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), times), max_size=8),
    st.lists(st.tuples(st.sampled_from("ab"), times), max_size=8),
    st.sampled_from([1, 1 << 20]),
)
def test_words_pair_only_where_their_times_overlap(a, b, cells):
    (a_words, a_times), (b_words, b_times) = (([w for w, _ in x], [t for _, t in x]) for x in (a, b))

    def allowed(i, j):
        return a_times[i][0] < b_times[j][1] and b_times[j][0] < a_times[i][1]

    least = by_definition(a_words, b_words, allowed)
    assert distance(a_words, b_words, a_times, b_times) == least[0]
    pairs = align(a_words, b_words, a_times, b_times, table_cells=cells)
    check_path(pairs, len(a), len(b))
    found = count(pairs, a_words, b_words)
    assert (found.errors, found.substitutions) == least
    assert all(allowed(i, j) for i, j in pairs if i is not None and j is not None)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=15),
    st.lists(st.sampled_from(["one", "two", "three"]), max_size=15),
)
def test_wer_is_jiwers(reference, hypothesis):
    theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    ours = word_errors(reference, hypothesis)
    assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert ours.rate == pytest.approx(theirs.wer)


def test_a_long_pair_is_split_and_still_jiwers():
    number = random.Random(0)
    reference = [str(number.randrange(40)) for _ in range(3000)]
    hypothesis = [w if number.random() < 0.8 else str(number.randrange(40)) for w in reference if number.random() < 0.9]
    pairs = align(reference, hypothesis)
    check_path(pairs, len(reference), len(hypothesis))
    theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    assert count(pairs, reference, hypothesis).rate == pytest.approx(theirs.wer)


def test_texts_are_compared_by_their_words():
    assert words("It's 5 o’clock -- NOW, 'yes'!") == ["it's", "5", "o'clock", "now", "yes"]
    assert word_errors("The cat sat.", "the CAT sat") == WordErrors(0, 0, 0, 3)
    assert word_errors("the cat sat", "a cat") == WordErrors(1, 1, 0, 3)
    assert word_errors("", "loop loop") == WordErrors(0, 0, 2, 0)
    assert word_errors("", "").rate == 0 and word_errors("", "a").rate == float("inf")
    assert sum([WordErrors(1, 2, 3, 4), WordErrors(1, 1, 1, 6)], WordErrors()) == WordErrors(2, 3, 4, 10)
    assert WordErrors(2, 3, 4, 10).rate == 0.9


def test_alignment_refuses_times_that_do_not_fit():
    with pytest.raises(ValueError, match="times of both"):
        align(["a"], ["a"], [(0, 1)])
    with pytest.raises(ValueError, match="hypothesis has 2 words and 1 times"):
        align(["a"], ["a", "b"], [(0, 1)], [(0, 1)])
    with pytest.raises(ValueError, match="not finite"):
        align(["a"], ["a"], [(0, float("nan"))], [(0, 1)])


def test_intervals_cover_the_truth_as_often_as_they_say():
    number, inside = np.random.default_rng(0), 0
    for trial in range(200):
        # 30 speakers, each with a rate of their own around 0.3, 20 clips of 5 words each
        rates = np.repeat(number.beta(6, 14, 30), 20)
        found = bootstrap(
            number.binomial(5, rates), np.full(600, 5), np.repeat(np.arange(30), 20), resamples=400, seed=trial
        )
        inside += found.low <= 0.3 <= found.high
        assert found.low <= found.value <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_intervals_over_speakers_are_wider_than_over_clips():
    errors, totals, speakers = np.repeat([0, 5], 50), np.full(100, 5), np.repeat(np.arange(10), 10)
    clips, people = bootstrap(errors, totals), bootstrap(errors, totals, speakers)
    assert clips.value == people.value == 0.5
    assert people.high - people.low > 2 * (clips.high - clips.low)
    assert bootstrap(errors, totals, speakers) == people
    assert str(people).startswith("50.0% [")


def test_intervals_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="2 errors, 1 totals"):
        bootstrap([1, 2], [1])
    with pytest.raises(ValueError, match="1 groups"):
        bootstrap([1, 2], [1, 2], ["a"])
    with pytest.raises(ValueError, match="sum to 0"):
        bootstrap([], [])
