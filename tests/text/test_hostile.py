"""Whatever the text, the front end speaks it, says there is nothing to speak, or names what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.tts.text import FrontEnd, normalize

FRONT_END = FrontEnd()
PIECES = [
    "a", "1", "A", ".", ",", "-", "'", "/", " ", "$", "#", "@", "&", "[", "]]", "(", "1,", "1.", "1,000,",
    "a.", "A.", "1-",
    "1/", "1:", "1 ", "A ", "M", "x1", "1x", "A1-", "1st", "$1", "http://", "a@b.", "www.", "St. ",
    "Nov. 5, ", "12/11/", "12:30 ",
    "(555) ", "555-", "+44 ", "e\u0301", "😀", "א", "中", "\x00", "\ud800", "½", "²", "'s", "''", "?!", "...",
    "— ", "--", "**",
    "Henry V ", "Mc", "aB", "use ", "THE ", "1.1.", "1%", "1°", "\n", "AT&T", "^2", "1' ", "- 1", "vol. ",
    "IX ",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::melstate.tts.text.characters.TextWarning")
@pytest.mark.parametrize("piece", PIECES)
def test_long_rows_of_one_thing(piece):
    """A rule in quadratic time would hold this up for minutes."""
    said = normalize(piece * (20_000 // len(piece)))
    assert not any(map(str.isdigit, said)) and said.isascii() or "—" in said


@pytest.mark.filterwarnings("ignore::melstate.tts.text.characters.TextWarning")
@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(max_size=120), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
def test_any_text_is_spoken_or_empty(check, text):
    for sentence in FRONT_END.sentences(text):
        check(sentence)
        assert "\ud800" not in sentence.text


@pytest.mark.filterwarnings("ignore::melstate.tts.text.characters.TextWarning")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["green", "7", "NASA", "Dr.", "$5,", "read", "it's", "12:30", "a"]), min_size=1, max_size=90
    )
)
def test_no_word_is_dropped(words):
    """Every known word of the text is among the spoken ones, in order."""
    said = iter(word for sentence in FRONT_END.sentences(" ".join(words)) for word in sentence.words)
    assert all(any(word == spoken for spoken in said) for word in words if word in ("green", "NASA", "read", "it's"))
