"""Beam search equals the sum over all paths where that can be computed; alignments are monotone and complete."""

import itertools
import math

import numpy as np
import pytest
import torch

from melstate.asr.beam import Beam
from melstate.asr.ctc import align, align_words, best_path, ctc_loss
from melstate.asr.language_model import LanguageModel
from melstate.asr.tokens import BLANK, FIRST_PIECE, Tokens


class Letters(Tokens):
    """A vocabulary of three pieces, so that every path can be listed."""

    def __init__(self):
        super().__init__()
        self.pieces = ("▁", "a", "b")


LETTERS = Letters()
SIZE = len(LETTERS)


def random_log_probs(frames, seed=0):
    """Marks between blank and pieces are all but impossible."""
    logits = torch.randn(frames, SIZE, generator=torch.Generator().manual_seed(seed)) * 2
    logits[:, 1:FIRST_PIECE] = -100.0
    return logits.log_softmax(-1)


def collapse(path):
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


def all_paths(log_probs):
    totals = {}
    symbols = [BLANK, *range(FIRST_PIECE, SIZE)]
    for path in itertools.product(symbols, repeat=len(log_probs)):
        score = sum(float(log_probs[t, s]) for t, s in enumerate(path))
        key = collapse(path)
        totals[key] = np.logaddexp(totals.get(key, -math.inf), score)
    return totals


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_is_the_sum_over_all_paths(seed):
    log_probs = random_log_probs(5, seed)
    totals = all_paths(log_probs)
    beam = Beam(LETTERS, width=10_000, floor=-1e9, choices=99, bonus=0.0)
    prefixes = beam.advance(beam.start(), log_probs.numpy())
    assert {prefix.tokens for prefix in prefixes} == set(totals)
    for prefix in prefixes:
        assert prefix.acoustic == pytest.approx(totals[prefix.tokens], abs=1e-4)
    assert prefixes[0].tokens == max(totals, key=totals.get)


def test_with_a_language_model_the_beam_finds_the_best_sum():
    language = LanguageModel.train(["a b", "ab a", "b a b"])
    log_probs = random_log_probs(5, 7)
    beam = Beam(LETTERS, language, width=10_000, floor=-1e9, choices=99, weight=0.7, bonus=0.3)
    best = {}
    for tokens, acoustic in all_paths(log_probs).items():
        words, history, score = LETTERS.decode(tokens).split(), language.start, acoustic
        for word in words:
            value, history = language.score(history, word)
            score += 0.7 * value + 0.3
        best[tokens] = score + (0.7 * language.end(history) if tokens else 0.0)
    finished = beam.finish(beam.advance(beam.start(), log_probs.numpy()))
    assert finished[0].score == pytest.approx(max(best.values()), abs=1e-4)
    for prefix in finished[:20]:
        assert prefix.score == pytest.approx(best[prefix.tokens], abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_with_a_dictionary_only_its_words_are_written(seed):
    language = LanguageModel.train(["a b"], spellings=["ab", "bba"])
    log_probs = random_log_probs(5, seed)
    beam = Beam(LETTERS, language, width=10_000, floor=-1e9, choices=99, weight=0.7, bonus=0.3)
    allowed = {
        t: s for t, s in all_paths(log_probs).items() if set(LETTERS.decode(t).split()) <= {"a", "b", "ab", "bba"}
    }
    finished = beam.finish(beam.advance(beam.start(), log_probs.numpy()))
    assert {prefix.tokens for prefix in finished} == set(allowed)
    for prefix in finished:
        assert prefix.acoustic == pytest.approx(allowed[prefix.tokens], abs=1e-4)


def test_a_word_that_never_ended_is_taken_back():
    tokens = LETTERS.encode("ab bb")
    log_probs = torch.full((2 * len(tokens), SIZE), -30.0)
    for number, token in enumerate(tokens):
        log_probs[2 * number, token] = log_probs[2 * number + 1, BLANK] = 0.0
    language = LanguageModel.train(["ab"], spellings=["bba"])
    beam = Beam(LETTERS, language, width=4, floor=-20.0)
    finished = beam.finish(beam.advance(beam.start(), log_probs.numpy()))
    assert LETTERS.decode(finished[0].tokens) == "ab"


@pytest.mark.parametrize("cuts", [[12], [1] * 12, [5, 0, 7]])
def test_any_split_of_the_frames_gives_the_same_beams(cuts):
    log_probs = random_log_probs(12, 1).numpy()
    beam = Beam(LETTERS, LanguageModel.train(["a b"]), width=4)
    prefixes = beam.start()
    for piece in np.split(log_probs, np.cumsum(cuts)[:-1]):
        prefixes = beam.advance(prefixes, piece)
    assert prefixes == beam.advance(beam.start(), log_probs)


def test_marks_are_never_written():
    log_probs = torch.full((4, SIZE), -20.0)
    log_probs[:, 2] = 0.0
    beam = Beam(LETTERS, floor=-50.0)
    assert all(t >= FIRST_PIECE for p in beam.advance(beam.start(), log_probs.numpy()) for t in p.tokens)


@pytest.mark.parametrize("seed", range(4))
def test_alignment_is_the_likeliest_path_and_monotone(seed):
    log_probs = random_log_probs(6, seed)
    tokens = [7, 7, 8]
    paths = [p for p in itertools.product([BLANK, 7, 8], repeat=6) if collapse(p) == tuple(tokens)]
    best = max(paths, key=lambda p: sum(float(log_probs[t, s]) for t, s in enumerate(p)))
    aligned = align(log_probs, tokens)
    assert [a.token for a in aligned] == tokens
    assert [best[t] for a in aligned for t in range(a.start, a.stop)] == [
        a.token for a in aligned for _ in range(a.start, a.stop)
    ]
    assert sum(a.stop - a.start for a in aligned) == sum(s != BLANK for s in best)
    stops = [0] + [a.stop for a in aligned]
    assert all(stop <= a.start < a.stop for stop, a in zip(stops, aligned, strict=False))
    assert all(0 < a.probability <= 1 for a in aligned)


def test_words_have_the_frames_of_their_pieces():
    log_probs, ids = random_log_probs(12, 3), LETTERS.encode("ab a b")
    pieces = align(log_probs, ids)
    marked = [*ids[:5], 1, *ids[5:], 2, 1]
    words = align_words(log_probs, marked, LETTERS)
    assert [LETTERS.decode(piece.token for piece in word) for word in words] == ["ab", "a", "b"]
    assert [piece for word in words for piece in word] == pieces
    # a lone boundary spells no word, and two words may be parted by a mark alone
    a, boundary = LETTERS.encode("a")[1], LETTERS.encode("a")[0]
    words = align_words(log_probs, [boundary, 1, boundary, a, 1, a], LETTERS)
    assert [[piece.token for piece in word] for word in words] == [[boundary, a], [a]]


def test_alignment_of_nothing_and_of_too_much():
    assert align(random_log_probs(3), []) == []
    with pytest.raises(ValueError, match="3 frames cannot hold 3 tokens and 1 repeats"):
        align(random_log_probs(3), [7, 7, 8])


def test_loss_is_the_negative_log_of_all_paths():
    log_probs = random_log_probs(5, 2)
    targets = torch.tensor([[7, 8]])
    loss = ctc_loss(log_probs[None], torch.tensor([5]), targets, torch.tensor([2]))
    assert float(loss) * 2 == pytest.approx(-all_paths(log_probs)[(7, 8)], abs=1e-4)


def test_rows_whose_target_is_not_known_count_nothing():
    log_probs = torch.stack([random_log_probs(5, seed) for seed in (2, 3)])
    frames, targets, lengths = torch.tensor([5, 5]), torch.tensor([[7, 8], [6, 6]]), torch.tensor([2, 0])
    first = ctc_loss(log_probs[:1], frames[:1], targets[:1], lengths[:1])
    assert torch.equal(ctc_loss(log_probs, frames, targets, lengths, torch.tensor([True, False])), first)
    assert ctc_loss(log_probs, frames, targets, lengths, torch.tensor([False, False])) == 0
    everything = ctc_loss(log_probs, frames, targets, lengths)
    assert torch.equal(ctc_loss(log_probs, frames, targets, lengths, torch.tensor([True, True])), everything)
    assert everything > first


def test_best_path_merges_repeats_and_drops_blanks():
    path = [7, 7, 0, 7, 8, 8, 0]
    assert best_path(torch.nn.functional.one_hot(torch.tensor(path), SIZE).float()) == [7, 7, 8]
