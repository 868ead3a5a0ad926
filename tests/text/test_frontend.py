"""Text to symbol ids: what every sentence promises, phones given inline, sentences and their longest length."""

import subprocess
import sys
import textwrap

import pytest

from melstate.tts.text import FrontEnd, Sentence, symbols
from melstate.tts.text.sentences import MAX_WORDS, split_sentences


def spoken(sentence: Sentence) -> str:
    return " ".join(symbols.to_symbols(sentence.ids))


def one(text: str, **options) -> str:
    (sentence,) = FrontEnd(**options).sentences(text)
    return spoken(sentence)


def test_a_sentence(check):
    (sentence,) = FrontEnd().sentences("Hello, world!")
    assert sentence.text == "Hello, world!" and sentence.words == ("Hello", "world")
    assert spoken(sentence) == "^ HH AH0 L OW1 , W ER1 L D ! $"
    assert sentence.word_of == (-1, 0, 0, 0, 0, -1, 1, 1, 1, 1, -1, -1)
    check(sentence)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("yes", "."),
        ("yes?!", "?"),
        ("yes!!!", "!"),
        ("yes: no", "; ."),
        ("(yes) no", ", ."),
        ("yes -- no; yes...", ", ; ."),
        ('"yes," no', ", ."),
        ("... yes,", ","),
        ("yes\u2014no", ", ."),
    ],
)
def test_marks_fold(text, marks):
    assert [mark for mark in one(text).split() if mark in symbols.PUNCTUATION] == marks.split()


@pytest.mark.parametrize("text", ["", " \n\t", "...", "?!", "\u200b\x00", "'\"-", "😀"])
@pytest.mark.filterwarnings("ignore::melstate.tts.text.characters.TextWarning")
def test_what_holds_no_words_has_no_sentences(text):
    assert list(FrontEnd().sentences(text)) == []
    with pytest.raises(ValueError, match="nothing to speak"):
        FrontEnd().sentence(text)


def test_inline_phones():
    assert one("Say [[z AO1 R K]], Dr. [[L IY1]].") == "^ S EY1 Z AO1 R K , D AA1 K T ER0 L IY1 . $"
    assert one("an open [[bracket") == one("an open, bracket")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a [[HH AH]] b", r"\[\[HH AH\]\]: unknown phone 'AH'; a vowel carries its stress"),
        ("[[Link]]", r"unknown phone 'LINK'"),
        ("[[ ]]", "no phones given"),
    ],
)
def test_bad_inline_phones_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        list(FrontEnd().sentences(text))


def test_a_users_words_answer_before_the_rules():
    words = {"GPT-4": "JH IY1", "Zork": "Z AO1 R K", "3.5": "TH R IY1"}
    assert one("The (GPT-4), Zork's 3.5.", user_lexicon=words) == "^ DH AH0 , JH IY1 , Z AO1 R K S TH R IY1 . $"


def test_spelled_a_is_no_article():
    assert one("A. Smith, a vitamin A pill.").split().count("EY1") == 2
    assert one("In A Tale of a city").split().count("EY1") == 1  # that of "tale"


@pytest.mark.parametrize("word", ["brillig", "xkcdish", "o'brienesque", "qwrtp", "un-brilligish"])
def test_unknown_words_are_guessed_or_spelled(check, word):
    (sentence,) = FrontEnd().sentences(word)
    check(sentence)
    assert any(map(symbols.is_vowel, symbols.to_symbols(sentence.ids)))


def test_sentences_end_where_they_should():
    text = "Dr. Smith came at 5 p.m. and left. See vol. 2, p. 7, no. 3. Gen. Lee of Ft. Worth paid $3.50.\nA line? Yes!"
    assert list(split_sentences(text)) == [
        "Dr. Smith came at 5 p.m. and left.",
        "See vol. 2, p. 7, no. 3.",
        "Gen. Lee of Ft. Worth paid $3.50.",
        "A line?",
        "Yes!",
    ]


def test_wrapped_lines_are_one_text():
    whole = (
        "It was a bright cold day in April, and the clocks were striking thirteen. A well-known man, who had paid "
        "five dollars to Mr. Brown the day before, slipped quickly through the glass doors of the old house."
    )
    for width in (56, 72, 99):
        wrapped = "\n".join(textwrap.wrap(whole, width))
        assert list(split_sentences(wrapped)) == list(split_sentences(whole)), width
    assert list(split_sentences("Apples\nPears\nPlums")) == ["Apples", "Pears", "Plums"]
    assert list(split_sentences("Apples,\npears,\n- plums")) == ["Apples, pears,", "- plums"]
    title = "A title that is just as long as a line of wrapped text is"
    assert list(split_sentences(f"{title}\n\nThen it begins.")) == [title, "Then it begins."]
    assert list(split_sentences(f"{title}\n- Then it begins.")) == [title, "- Then it begins."]


@pytest.mark.parametrize("gap", [" ", ", ", " and so, "])
def test_long_sentences_are_cut_and_lose_no_word(check, gap):
    text = gap.join(["green"] * 500)
    parts = list(FrontEnd().sentences(text))
    assert [word for part in parts for word in part.words] == text.replace(",", "").split()
    assert all(1 <= len(part.words) <= MAX_WORDS for part in parts)
    for part in parts:
        check(part)
    if gap == " and so, ":
        assert all(part.words[-1] == "so" for part in parts[:-1])


def test_a_long_paragraph_is_the_sum_of_its_sentences():
    text = "The quick fox paid 5 dollars to Mr. Brown. " * 400
    sentences = list(FrontEnd().sentences(text))
    assert len(sentences) == 400 and len({sentence.ids for sentence in sentences}) == 1


def test_importing_and_known_words_need_no_torch():
    code = (
        "import sys; from melstate.tts.text import FrontEnd; list(FrontEnd().sentences('Hello, world at 5pm.'));"
        "heavy = {'torch', 'librosa', 'lightning', 'hydra', 'matplotlib', 'scipy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
