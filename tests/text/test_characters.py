"""Any Unicode in, known characters out, with one warning that names what was lost."""

import warnings

import pytest

from melstate.tts.text import FrontEnd, normalize
from melstate.tts.text.characters import NAMED, TextWarning, clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("café naïve Zürich", "cafe naive Zurich"),
        ("“quoted” ‘it’s’", "\"quoted\" 'it's'"),
        ("e\u0301" + "\u0300" * 5000, "e"),
        ("ｆｕｌｌ １２", "full 12"),
        ("٣ and ५", "3 and 5"),
        ("x² and 3½", "x^2 and 3 1/2"),
        ("a\u00a0b\tc", "a b c"),
        ("a\r\nb\u2028c", "a\nb\nc"),
        ("£1 – €2", "£1 – €2"),
        ("ﬁne… ok", "fine... ok"),
    ],
)
def test_what_has_a_plain_spelling_is_spelled_in_silence(text, cleaned):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "named", "cleaned"),
    [
        ("a\x00b", r"left out U\+0000", "ab"),
        ("a\ud800b", r"left out U\+D800", "ab"),
        ("a\u200bb", r"left out U\+200B ZERO WIDTH SPACE", "ab"),
        ("a\u202eb", r"left out U\+202E RIGHT-TO-LEFT OVERRIDE", "ab"),
        ("hi 😀", r"left out U\+1F600 GRINNING FACE", "hi  "),
        ("мир", r"read by their Latin spelling U\+0438 CYRILLIC SMALL LETTER I", "mir"),
        ("שלום", r"read by their Latin spelling U\+05D5 HEBREW LETTER VAV", "slvm"),
        ("\ue000", r"left out U\+E000 without a name", ""),
    ],
)
def test_what_is_lost_is_named(text, named, cleaned):
    with pytest.warns(TextWarning, match=named) as caught:
        assert clean(text).lower() == cleaned
    assert len(caught) == 1


def test_a_warning_stays_short():
    with pytest.warns(TextWarning) as caught:
        list(FrontEnd().sentences("".join(map(chr, range(0x1F600, 0x1F640))) + " hello. There, 😀.\nAgain 😀"))
    assert len(caught) == 1
    assert f"and {64 - NAMED} more kinds" in str(caught[0].message)
    assert len(str(caught[0].message)) < 400


def test_normalize_warns_too():
    with pytest.warns(TextWarning, match="GRINNING"):
        assert normalize("hi 😀 there") == "hi there"
