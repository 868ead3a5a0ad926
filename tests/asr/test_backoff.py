"""Back-off n-grams: probabilities that sum to 1, the table's where it has them, shorter histories' where it has not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melstate.asr.backoff import END, FIRST_WORD, START, STEP, BackoffModel, encode, pack

WORDS = ["a", "b", "c"]
SIZE = len(WORDS) + FIRST_WORD
NOTHING = {n: np.zeros((0, n), np.int64) for n in (2, 3)}


@st.composite
def models(draw):
    """Any n-grams with any codes, improbable sums and all."""
    grams, codes = {1: np.arange(1, SIZE)[:, None]}, {}
    for n in (2, 3):
        rows = draw(st.sets(st.tuples(*[st.integers(0, SIZE - 1)] * (n - 1), st.integers(1, SIZE - 1)), max_size=12))
        grams[n] = np.array(sorted(rows), np.int64).reshape(-1, n)
    for n, table in grams.items():
        codes[n] = np.array(draw(st.lists(st.integers(0, 60), min_size=len(table), max_size=len(table))), np.uint8)
    return BackoffModel(WORDS, grams, codes)


@given(models())
def test_probabilities_sum_to_one_after_any_history(model):
    histories = [(), *[(a,) for a in range(SIZE)], *[(a, b) for a in range(SIZE) for b in range(SIZE)]]
    for history in histories:
        total = sum(math.exp(model.log_probability(history, symbol)) for symbol in range(1, SIZE))
        # What histories leave over is bounded from below, so that very sure ones may be a little more than sure.
        assert total == pytest.approx(1.0, abs=2e-3), history


def test_the_table_counts_before_shorter_histories():
    grams = {1: np.arange(1, SIZE)[:, None], 2: np.array([[START, 2], [2, 3]]), 3: np.array([[START, 2, 4]])}
    codes = {1: encode(np.log([0.1, 0.3, 0.3, 0.3])), 2: encode(np.log([0.5, 0.25])), 3: encode(np.log([0.75]))}
    model = BackoffModel(WORDS, grams, codes)
    a, b, c = (model.symbol(word) for word in WORDS)
    near = {"rel": 2 * STEP}
    assert math.exp(model.log_probability(model.start, a)) == pytest.approx(0.5, **near)
    assert math.exp(model.log_probability((b, a), b)) == pytest.approx(0.25, **near)
    assert math.exp(model.log_probability((START, a), c)) == pytest.approx(0.75, **near)
    # After "a" what is not "b" shares what is left as single words do.
    rest = [math.exp(model.log_probability((c, a), s)) for s in (END, a, c)]
    alone = [math.exp(model.log_probability((), s)) for s in (END, a, c)]
    assert np.allclose(np.array(rest) / rest[0], np.array(alone) / alone[0])
    assert model.log_probability((c, model.unknown), a) == model.log_probability((), a)
    assert model.log_probability((), model.symbol("zebra")) == -math.inf


@given(models())
def test_it_comes_back_from_its_arrays(model):
    again = BackoffModel.from_arrays(model.to_arrays())
    assert again.words == model.words
    for n in (1, 2, 3):
        assert np.array_equal(again.grams[n], model.grams[n]) and np.array_equal(again.codes[n], model.codes[n])
    assert again.log_probability((2, 3), 4) == model.log_probability((2, 3), 4)


@given(st.lists(st.floats(-21, 0), max_size=5))
def test_codes_are_no_more_than_a_step_below(log_probs):
    values = np.array(log_probs)
    coded = -STEP * encode(values).astype(float)
    assert (coded <= values + 1e-9).all() and (coded >= values - STEP - 1e-9).all()


def test_packed_n_grams_keep_their_order():
    table = np.array([[0, 5], [1, 2], [1, 65535], [2, 0]])
    assert (np.diff(pack(table)) > 0).all()


def test_tables_that_do_not_fit_are_refused():
    ones, codes = np.arange(1, SIZE)[:, None], {1: np.zeros(4, np.uint8), 2: np.zeros(0), 3: np.zeros(0)}
    with pytest.raises(ValueError, match="expected 1, 2, 3"):
        BackoffModel(WORDS, {1: ones}, codes)
    with pytest.raises(ValueError, match="single symbols for 4"):
        BackoffModel(WORDS, {1: ones[1:], **NOTHING}, codes | {1: np.zeros(3, np.uint8)})
    with pytest.raises(ValueError, match="beyond them"):
        BackoffModel(WORDS, {1: ones, **NOTHING, 2: np.array([[2, 9]])}, codes | {2: np.zeros(1)})
    with pytest.raises(ValueError, match="rising order"):
        BackoffModel(WORDS, {1: ones, **NOTHING, 2: np.array([[2, 3], [2, 2]])}, codes | {2: np.zeros(2)})
