"""The number speller."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melstate.tts.text import numbers

VALUES = {word: value for value, word in enumerate(numbers.ONES)} | {
    word: 10 * ten for ten, word in enumerate(numbers.TENS) if ten > 1
}


def value_of(words: str) -> int:
    """Reads a cardinal back, independently of how it was made."""
    total = group = 0
    for word in words.replace("-", " ").split():
        if word == "hundred":
            group *= 100
        elif word in numbers.SCALES:
            total, group = total + group * 1000 ** numbers.SCALES.index(word), 0
        else:
            group += VALUES[word]
    return total + group


@given(st.integers(0, 10**numbers.MAX_DIGITS - 1))
def test_a_cardinal_reads_back(value):
    assert value_of(numbers.cardinal(str(value))) == value


def test_longer_numbers_are_read_digit_by_digit():
    assert numbers.cardinal("1" * (numbers.MAX_DIGITS + 1)) == " ".join(["one"] * (numbers.MAX_DIGITS + 1))


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("1", "first"),
        ("12", "twelfth"),
        ("20", "twentieth"),
        ("21", "twenty-first"),
        ("100", "one hundredth"),
        ("0", "zeroth"),
    ],
)
def test_ordinals(digits, words):
    assert numbers.ordinal(digits) == words


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("1999", "nineteen ninety-nine"),
        ("1905", "nineteen oh five"),
        ("1900", "nineteen hundred"),
        ("2000", "two thousand"),
        ("2005", "two thousand five"),
        ("2026", "twenty twenty-six"),
        ("476", "four seventy-six"),
    ],
)
def test_years(digits, words):
    assert numbers.year(digits) == words


@given(st.integers(1, 3999))
def test_roman_numerals_are_inverse(value):
    assert numbers.from_roman(numbers.to_roman(value)) == value


@pytest.mark.parametrize("text", ["", "IIII", "VX", "IC", "MDMA", "ABC", "I" * 40])
def test_what_is_no_roman_numeral(text):
    assert numbers.from_roman(text) is None
