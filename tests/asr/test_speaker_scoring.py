"""Who said what: permutations do not matter, perfect is zero, and meeteval counts the same."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from conversation_cases import ANSWERS, CASES, COLLARS, Said, ask_meeteval, conversation

from melstate.asr.scoring import word_errors
from melstate.asr.speaker_scoring import (
    SpeakerErrors,
    best_speaker_map,
    cp_word_errors,
    mwde,
    tcp_word_errors,
    wder,
)

seeds = st.integers(0, 10**6)


def renamed(spoken, names):
    return [word._replace(speaker=names[word.speaker]) for word in spoken]


def ours(reference, hypothesis):
    timed = [tcp_word_errors(reference, hypothesis, collar).errors for collar in COLLARS]
    return [cp_word_errors(reference, hypothesis).errors, *timed]


def test_cp_and_tcp_are_meetevals_answers():
    answers = json.loads(ANSWERS.read_text())["errors"]
    assert [ours(*conversation(seed)) for seed in range(CASES)] == answers
    assert sum(cp < tight for cp, tight, _ in answers) > 10 and sum(loose < tight for _, tight, loose in answers) > 10


def test_cp_and_tcp_are_meetevals():
    pytest.importorskip("meeteval", reason="pip install meeteval (its source needs a C++ compiler)")
    for seed in range(1000, 1030):
        assert ours(*conversation(seed)) == ask_meeteval(*conversation(seed)), seed


@settings(max_examples=20, deadline=None)
@given(seeds, st.permutations("ABCDE"))
def test_speaker_names_do_not_matter(seed, permuted):
    reference, hypothesis = conversation(seed)
    other = renamed(hypothesis, dict(zip("ABCDE", permuted, strict=True)))
    assert ours(reference, hypothesis) == ours(reference, other)
    assert mwde(reference, hypothesis) == mwde(reference, other)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_perfect_is_zero_and_bounds_hold(seed):
    reference, hypothesis = conversation(seed)
    assert ours(reference, renamed(reference, dict(zip("abcd", "WXYZ", strict=True)))) == [0, 0, 0]
    assert wder(reference, reference).wrong == mwde(reference, reference).wrong == 0
    cp, tight, loose = ours(reference, hypothesis)
    assert cp <= loose <= tight <= len(reference) + len(hypothesis)
    one = [word._replace(speaker="one") for word in reference], [word._replace(speaker="x") for word in hypothesis]
    plain = word_errors([w.text for w in reference], [w.text for w in hypothesis]).errors
    assert cp_word_errors(*one).errors == plain
    assert mwde(reference, hypothesis).wrong <= wder(reference, hypothesis).wrong


def test_wder_counts_aligned_words_of_the_wrong_speaker():
    reference = [Said(w, n, n + 0.5, s) for n, (w, s) in enumerate(zip("p q r s t".split(), "aabbb", strict=True))]
    hypothesis = [Said(w, n, n + 0.5, s) for n, (w, s) in enumerate(zip("p x r t u".split(), "ababb", strict=True))]
    # p: right; q/x: substituted, wrong speaker; r: wrong; s: deleted; t: right; u: inserted
    assert wder(reference, hypothesis) == SpeakerErrors(2, 4)
    assert wder(reference, hypothesis).rate == 0.5
    swapped = renamed(hypothesis, {"a": "b", "b": "a"})
    assert wder(reference, swapped) == SpeakerErrors(2, 4)
    three = renamed(reference[:4], {"a": "x", "b": "y"}) + [reference[4]._replace(speaker="z")]
    assert best_speaker_map(reference, three) == {"x": "a", "y": "b"}
    assert mwde(reference, three) == SpeakerErrors(1, 5)
    assert mwde([], []).rate == 0 and mwde(reference, []) == SpeakerErrors(0, 0)
    assert SpeakerErrors(1, 4) + SpeakerErrors(1, 6) == SpeakerErrors(2, 10)


def test_missing_and_extra_speakers_are_errors():
    reference = [Said("a", 0, 1, "x"), Said("b", 1, 2, "y")]
    assert cp_word_errors(reference, reference[:1]).deletions == 1
    assert cp_word_errors(reference[:1], reference).insertions == 1
    assert cp_word_errors(reference, [word._replace(speaker=None) for word in reference]).errors == 2
    assert cp_word_errors([], []).rate == 0 and cp_word_errors(reference, []).rate == 1


def test_late_words_are_errors_outside_the_collar():
    reference = [Said("a", 0, 1, "x")]
    late = [Said("a", 3, 4, "x")]
    assert tcp_word_errors(reference, late, 2.5).errors == 0
    assert tcp_word_errors(reference, late, 1.5).errors == 2
    with pytest.raises(ValueError, match="collar"):
        tcp_word_errors(reference, late, -1)
    with pytest.raises(ValueError, match="hypothesis speaker 'x' has words out of time order"):
        tcp_word_errors(reference, late + reference)
