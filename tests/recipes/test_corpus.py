"""Folders in LJSpeech layout: what is read, what is reported, how prompts are split."""

import shutil
from pathlib import Path

import pytest

from melstate.recipes.data.corpus import Utterance, read_ljspeech
from melstate.recipes.data.split import prompt_key, split_by_prompt

SPEECH = Path(__file__).parents[1] / "speech"


def test_reads_every_good_row():
    corpus = read_ljspeech(SPEECH)
    assert len(corpus.utterances) == 6 and not corpus.problems
    assert all(u.audio.is_file() and u.text and u.speaker == "speech" for u in corpus.utterances)


def test_bad_rows_are_reported_by_file_and_line(tmp_path):
    shutil.copytree(SPEECH, tmp_path / "c", dirs_exist_ok=True)
    metadata = tmp_path / "c" / "metadata.csv"
    good = metadata.read_text().splitlines()
    rows = [
        good[0].encode(),
        b"one column",
        b"../../etc/passwd|text|text",
        good[0].encode(),
        b"arctic_a0158_1592713822||",
        b"missing|text|text",
        b"latin1|caf\xe9|caf\xe9",
        b"",
        good[2].encode() + b"\r",
    ]
    metadata.write_bytes(b"\n".join(rows))
    corpus = read_ljspeech(tmp_path / "c", "someone")
    assert [u.id for u in corpus.utterances] == [good[0].split("|")[0], good[2].split("|")[0]]
    assert corpus.utterances[1].text == good[2].split("|")[2]
    numbers = [int(p.removeprefix(f"{metadata}:").split(":")[0]) for p in corpus.problems]
    assert numbers == [2, 3, 4, 5, 6, 7]
    for problem, word in zip(
        corpus.problems, ["columns", "not a clip id", "already", "no text", "wavs", "UTF-8"], strict=True
    ):
        assert word in problem


def test_normalised_text_wins_and_falls_back(tmp_path):
    (tmp_path / "wavs").mkdir()
    for name in "ab":
        (tmp_path / "wavs" / f"{name}.wav").touch()
    (tmp_path / "metadata.csv").write_text("\ufeffa|Dr. X|Doctor X\nb|plain\n", encoding="utf-8")
    assert [(u.id, u.text) for u in read_ljspeech(tmp_path).utterances] == [("a", "Doctor X"), ("b", "plain")]


def test_nothing_usable_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="metadata.csv"):
        read_ljspeech(tmp_path)
    (tmp_path / "metadata.csv").write_text("a|b\n")
    with pytest.raises(ValueError, match=r"no usable row.*metadata.csv:1"):
        read_ljspeech(tmp_path)


def utterances(texts):
    return [Utterance(f"u{i}", Path("x.wav"), text, "s") for i, text in enumerate(texts)]


def test_split_keeps_takes_of_a_prompt_together_in_any_order():
    rows = utterances([f"Prompt {i % 20}{'.' if i < 20 else ' !'}" for i in range(40)])
    train, dev = split_by_prompt(rows, 5)
    assert len({prompt_key(u.text) for u in dev}) == 5 and len(dev) == 10
    assert not {prompt_key(u.text) for u in dev} & {prompt_key(u.text) for u in train}
    again = split_by_prompt(rows[::-1], 5)[1]
    assert {u.id for u in again} == {u.id for u in dev}
    assert {u.id for u in split_by_prompt(rows, 5, seed=1)[1]} != {u.id for u in dev}


def test_split_leaves_something_to_train_on():
    with pytest.raises(ValueError, match="3 dev prompts .* 2 prompts"):
        split_by_prompt(utterances(["a", "b"]), 3)
