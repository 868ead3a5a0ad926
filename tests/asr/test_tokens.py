"""Written form and vocabulary."""

import pytest

from melstate.asr.tokens import END, FIRST_PIECE, SPEAKERS, Tokens, normalize_transcript, speaker_of, speaker_token

TEXTS = ["zero one two", "the cat sat on the mat", "don't you know", "jack went to see tiger"] * 5


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("ZERO THREE FIVE ONE", "zero three five one"),
        ("Don’t ‘quote’ 'me'!", "don't quote me"),
        ("Café naïve", "cafe naive"),
        ("Room 101, 1,234 and 007", "room one hundred one one thousand two hundred thirty four and zero zero seven"),
        ("  \n", ""),
        ("ßé日本", "sse"),
        ("'' ' - '", ""),
    ],
)  # fmt: skip
def test_written_form(text, normal):
    assert normalize_transcript(text) == normal
    assert normalize_transcript(normal) == normal


@pytest.mark.parametrize("pieces", [0, 40])
def test_text_survives_its_ids(pieces):
    tokens = Tokens.train(TEXTS, pieces)
    assert len(tokens) == FIRST_PIECE + len(tokens.pieces)
    for text in [*TEXTS[:4], "unseen words with every letter jump quickly vex"]:
        ids = tokens.encode(text)
        assert tokens.decode(ids) == text and min(ids) >= FIRST_PIECE and max(ids) < len(tokens)
        assert sum(tokens.opens(i) for i in ids) == len(text.split())
    again = Tokens.from_dict(tokens.to_dict())
    assert again.pieces == tokens.pieces and again.encode("the cat") == tokens.encode("the cat")


def test_ends_and_speakers_separate_words():
    tokens = Tokens()
    first, second = tokens.encode("a cat"), tokens.encode("sat")
    ids = [*first, speaker_token(1), END, *second[1:]]
    assert tokens.decode(ids) == "a cat sat"
    assert speaker_of(ids) == 1 and speaker_of(first) is None
    assert speaker_token(50) == speaker_token(SPEAKERS - 1) < FIRST_PIECE


def test_bad_vocabularies_are_refused():
    with pytest.raises(ValueError, match="ask for fewer"):
        Tokens.train(["ab"], 5000)
    with pytest.raises(ValueError, match="sentencepiece"):
        Tokens.from_dict({})
