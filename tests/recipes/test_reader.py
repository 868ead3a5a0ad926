"""The recogniser reads recordings and synthesis alike, and its scores are arithmetic that can be checked by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.recipes import reader
from melstate.vocoders import wav

CLIP = Path(__file__).parent.parent / "speech" / "wavs" / "arctic_a0098_1592746262.flac"


def test_reads_speech_at_any_level_and_remembers_it(tmp_path):
    audio, rate = wav.read(CLIP)
    cache = tmp_path / "cache" / "transcripts.jsonl"
    first = reader.Reader(cache)
    text = first.read(audio, rate)
    assert text == "shall i carry you"
    assert first.read(np.zeros(rate, np.float32), rate) == ""
    assert first.read(np.zeros(0, np.float32), rate) == ""
    cache.write_text(cache.read_text() + '{"audio": "cut sho')  # a run killed while writing
    again = reader.Reader(cache)
    again._decoder = None  # whatever is not remembered cannot be read
    assert again.read(audio, rate) == text
    with pytest.raises(AttributeError):
        again.read(audio[: rate // 2], rate)


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 4.0), seed=st.integers(0, 9))
def test_level_does_not_matter(gain, seed):
    noise = np.random.default_rng(seed).normal(0, 0.1, 22050).astype(np.float32)
    one, other = reader.prepare(noise, 22050), reader.prepare(gain * noise, 22050)
    assert len(one) == 16000 * (1 + 2 * reader.EDGE)
    assert np.abs(one.astype(int) - other).max() <= 1
    inner = one[round(reader.EDGE * 16000) : -round(reader.EDGE * 16000)] / 32767
    assert np.sqrt((inner**2).mean()) == pytest.approx(reader.LEVEL, rel=1e-3)


def test_words_are_compared_without_case_and_punctuation():
    assert reader.words("“Don't” — she said, TOM!") == "don't she said tom"
    assert reader.words("...") == ""


def test_scores_by_hand():
    scored = reader.score(["One two three four.", "Five six."], ["one too three", "five five six"])
    assert scored.errors.tolist() == [2, 1] and scored.words.tolist() == [4, 2]
    assert scored.rate == 0.5
    with pytest.raises(ValueError, match="prompt '!' holds no words"):
        reader.score(["!"], ["a"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 9)), min_size=2, max_size=30))
def test_intervals_hold_the_estimate(rows):
    mine, theirs, words = (np.array(column) for column in zip(*rows, strict=True))
    a, b = reader.Score(mine, words), reader.Score(theirs, words)
    for interval in (reader.word_error_rate(a), reader.word_error_rate(b)):
        assert 0 <= interval.low <= interval.value + 1e-9 and interval.value <= interval.high + 1e-9
    assert reader.ratio(a, a).value == pytest.approx(float(mine.any()))
    if theirs.any():
        assert reader.ratio(a, b).value == pytest.approx(mine.sum() / theirs.sum())


def test_intervals_shrink_with_more_prompts():
    few = reader.Score(np.tile([0, 1, 2], 5), np.full(15, 8))
    many = reader.Score(np.tile([0, 1, 2], 500), np.full(1500, 8))
    width = [interval.high - interval.low for interval in map(reader.word_error_rate, (few, many))]
    assert width[1] == pytest.approx(width[0] / 10, rel=0.2)  # the square root of a hundred times the prompts
