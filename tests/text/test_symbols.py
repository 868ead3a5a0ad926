"""The symbol table is frozen: checkpoints hold its ids."""

import hashlib

import pytest

from melstate.tts.text import symbols


def test_the_table_of_this_version_does_not_change():
    assert symbols.VERSION == 1
    assert symbols.SYMBOLS[:8] == ("_", "^", "$", ",", ";", ".", "?", "!")
    assert len(symbols.SYMBOLS) == 77 == len(set(symbols.SYMBOLS))
    digest = hashlib.sha256(" ".join(symbols.SYMBOLS).encode()).hexdigest()
    assert digest == "2e9bb0ba49981a5cdd046965f53152dd745e43e66774fd4a4a29ebb364f128e7"


def test_ids_and_symbols_are_inverse():
    assert symbols.to_symbols(symbols.to_ids(symbols.SYMBOLS)) == list(symbols.SYMBOLS)
    assert symbols.to_ids(symbols.SYMBOLS) == list(range(77))


@pytest.mark.parametrize("index", [-1, 77])
def test_an_id_outside_the_table_is_named(index):
    with pytest.raises(ValueError, match=f"symbol 1: id {index} is outside"):
        symbols.to_symbols([3, index])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HH AH L", "unknown phone 'AH'.*AH0, AH1 or AH2"),
        ("K1 AE1 T", "unknown phone 'K1'.*a consonant carries no stress: K"),
        ("HH QQ", "unknown phone 'QQ'.*phones are AA"),
        ("^ K", r"unknown phone '\^'"),
        ("K .", r"unknown phone '\.'"),
        ("  ", "no phones given"),
    ],
)
def test_a_bad_phone_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        symbols.parse_phones(text)


def test_phones_are_read_in_any_case():
    assert symbols.parse_phones(" hh ah0  l OW1 ") == ("HH", "AH0", "L", "OW1")


def test_every_fold_ends_in_the_table():
    assert set(symbols.FOLD.values()) <= set(symbols.PUNCTUATION)
    assert set(symbols.STRENGTH) == set(symbols.PUNCTUATION)
