"""The compiled dictionary, derived forms, and a user's own words."""

import pytest

from melstate.recipes.compile_lexicon import compile_lexicon, read_cmudict
from melstate.tts.text import symbols
from melstate.tts.text.lexicon import PATH, Lexicon, dictionary, pack, unpack


def said(word: str, **options) -> str:
    return " ".join(Lexicon(**options).pronounce(word) or ())


def test_the_shipped_dictionary_speaks_known_phones():
    words = dictionary()
    assert len(words) > 120_000
    assert set("".join(words.values())) <= {pack((phone,)) for phone in symbols.PHONES} | {" "}
    assert "Carnegie Mellon University" in (PATH.parent / "cmudict.LICENSE").read_text()


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("hello", "HH AH0 L OW1"),
        ("Hello", "HH AH0 L OW1"),
        ("emailed", "IY0 M EY1 L D"),
        ("Whittemore's", "W IH1 T M AO0 R Z"),
        ("boxes'", "B AA1 K S AH0 Z"),
        ("vaping", "V EY1 P IH0 NG"),
        ("rock-hard", "R AA1 K HH AA1 R D"),
        ("zzyzx", ""),
        ("rock-zzyzx", ""),
    ],
)
def test_listed_and_derived_words(word, phones):
    assert said(word) == phones


def test_phones_survive_packing():
    assert unpack(pack(symbols.PHONES)) == symbols.PHONES


def test_compiling_keeps_variants_in_order(tmp_path):
    path = tmp_path / "cmudict.dict"
    path.write_text("read R EH1 D\nread(2) R IY1 D # present\nodd AA1 D\n")
    entries = read_cmudict(path)
    assert entries == {"read": [("R", "EH1", "D"), ("R", "IY1", "D")], "odd": [("AA1", "D")]}
    assert compile_lexicon(entries) == compile_lexicon(entries)
    path.write_text("good G UH1 D\nbad B AE D\n")
    with pytest.raises(ValueError, match="cmudict.dict:2: unknown phone 'AE'"):
        read_cmudict(path)


def test_a_users_words_come_first(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\n\nhello  hh eh1 l\nUS\tY UW1 EH1 S\n")
    assert said("Hello", user=path) == "HH EH1 L"
    assert said("US", user=path) == "Y UW1 EH1 S"
    assert said("us", user=path) == "AH1 S"
    assert said("hello", user={"hello": "L OW1"}) == "L OW1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("word K AE T", r"words.txt:2: unknown phone 'AE'; a vowel carries its stress"),
        ("word", r"words.txt:2: no phones given"),
        ("w$rd K AE1 T", r"words.txt:2: 'w\$rd' is not one word"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "words.txt"
    path.write_text(f"fine F AY1 N\n{line}\n")
    with pytest.raises(ValueError, match=message):
        Lexicon(path)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.txt: no such file"):
        Lexicon(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="binary: not UTF-8"):
        Lexicon(tmp_path / "binary")
    with pytest.raises(ValueError, match="user lexicon, word 'x': unknown phone 'Q'"):
        Lexicon({"x": "Q"})
