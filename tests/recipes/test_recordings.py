"""Corpora of transcribed recordings: what is read, what is reported, what is kept apart."""

import json
import os
import pickle
from pathlib import Path

import pytest

from melstate.recipes.data.recordings import (
    Recording,
    is_digit_test,
    leave_speaker_out,
    partition,
    read_digits,
    read_librispeech,
    read_ljspeech_recordings,
    read_speechocean,
)
from melstate.recipes.data.this_american_life import read_this_american_life

SPEECH = Path(__file__).parents[1] / "speech"
DATA = Path(os.environ.get("MELSTATE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the training speech beside the checkout")
HEADING = b"utterance\tspeaker\tgender\tage\ttext"


def speechocean(folder, rows, clips):
    (folder / "dev").mkdir(parents=True)
    (folder / "dev.tsv").write_bytes(b"\n".join([HEADING, *rows]))
    for clip in clips:
        (folder / "dev" / f"{clip}.ogg").touch()


def test_speechocean_rows_become_recordings_or_problems(tmp_path):
    rows = [
        b"1\t0001\tm\t6\tWE CALL IT BEAR\r",
        b"2\t0001\tm\t6",
        b"../3\t0001\tm\t6\tNO",
        b"4\t0001\tm\t6\tCAF\xc9",
        b"1\t0001\tm\t6\tAGAIN",
        b"5\t0001\tm\t6\t ",
        b"6\t0002\tm\t6\tMISSING",
        b"",
        b"7\t0002\tf\t30\tIT'S FINE",
    ]
    speechocean(tmp_path, rows, "1257")
    read = read_speechocean(tmp_path, "dev")
    assert read.recordings == (
        Recording("1", tmp_path / "dev" / "1.ogg", "WE CALL IT BEAR", "speechocean762-0001"),
        Recording("7", tmp_path / "dev" / "7.ogg", "IT'S FINE", "speechocean762-0002"),
    )
    by_line = sorted(
        read.problems, key=lambda problem: int(problem.removeprefix(f"{tmp_path / 'dev.tsv'}:").split(":")[0])
    )
    expected = ["4 columns", "not an utterance id", "UTF-8", "already", "no text", "6.ogg"]
    assert all(word in problem for word, problem in zip(expected, by_line, strict=True)), by_line


def test_speechocean_refuses_what_it_is_not(tmp_path):
    with pytest.raises(ValueError, match="train, dev, not 'test'"):
        read_speechocean(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="dev.tsv"):
        read_speechocean(tmp_path, "dev")
    (tmp_path / "dev.tsv").write_text("a\tb\n")
    with pytest.raises(ValueError, match="utterance, speaker and text"):
        read_speechocean(tmp_path, "dev")
    (tmp_path / "dev.tsv").write_bytes(HEADING + b"\n1\t1\tm\t6\tHI")
    with pytest.raises(ValueError, match="no usable recording.*1.ogg"):
        read_speechocean(tmp_path, "dev")


def test_digits_carry_their_words_and_their_test_set(tmp_path):
    names = [f"{digit}_{speaker}_{index}.flac" for digit in (0, 7) for speaker in ("ann", "bo") for index in (0, 4, 5)]
    for name in [*names, "10_ann_1.flac", "readme.txt"]:
        (tmp_path / name).touch()
    read = read_digits(tmp_path)
    assert len(read.recordings) == 12 and len(read.problems) == 1 and "10_ann_1" in read.problems[0]
    assert {r.text for r in read.recordings} == {"zero", "seven"}
    train, test = partition(read.recordings, is_digit_test)
    assert {r.id.split("_")[2] for r in train} == {"5"} and {r.id.split("_")[2] for r in test} == {"0", "4"}
    others, own = leave_speaker_out(read.recordings, "digits-bo")
    assert {r.speaker for r in own} == {"digits-bo"} and {r.speaker for r in others} == {"digits-ann"}
    with pytest.raises(ValueError, match="no speaker 'bo'; there are digits-ann, digits-bo"):
        leave_speaker_out(read.recordings, "bo")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_digits(tmp_path / "none")


def test_ljspeech_layout_is_read_as_recordings():
    read = read_ljspeech_recordings(SPEECH, "someone")
    assert len(read.recordings) == 6 and all(r.path.is_file() and r.speaker == "someone" for r in read.recordings)


def test_librispeech_layout(tmp_path):
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "12" / "34"
    chapter.mkdir(parents=True)
    (chapter / "12-34.trans.txt").write_text("12-34-0000 HE HOPED\n12-34-0001 GONE\nnonsense\n12-34-0002\n")
    for number in (0, 2):
        (chapter / f"12-34-000{number}.flac").touch()
    for folder in (tmp_path, tmp_path / "LibriSpeech"):
        read = read_librispeech(folder, ["test-clean"])
        assert [(r.id, r.text, r.speaker) for r in read.recordings] == [("12-34-0000", "HE HOPED", "librispeech-12")]
        assert len(read.problems) == 3
    with pytest.raises(FileNotFoundError, match="dev-clean"):
        read_librispeech(tmp_path, ["dev-clean"])


TURN = {
    "episode": "ep-1",
    "act": "act1",
    "role": "host",
    "speaker": "ira",
    "utterance_start": 4.0,
    "utterance_end": 5.5,
    "utterance": "Hello there.",
    "alignments": [[4.0, 4.5, "hello"], [4.6, 5.5, "there"]],
}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def test_this_american_life_turns_words_and_problems(tmp_path):
    early = TURN | {"utterance_start": 1.0, "utterance_end": 2.0, "speaker": "bo", "alignments": None}
    bad = [
        TURN | {"utterance_end": 1.0},
        TURN | {"utterance": " "},
        {key: value for key, value in TURN.items() if key != "speaker"},
        TURN | {"alignments": [[4.0, "x", "hello"]]},
        TURN | {"utterance_start": float("nan")},
        "turn",
    ]
    path = write_json(tmp_path / "t.json", {"ep-1": [TURN, early, *bad], "ep-2": {}, "../ep": [TURN], "ep-3": bad})
    read = read_this_american_life(path)
    (episode,) = read.episodes
    assert episode.id == "ep-1" and episode.audio is None
    assert [turn.speaker for turn in episode.turns] == ["bo", "ira"]
    assert [(w.text, w.start, w.end) for w in episode.turns[1].words] == [("hello", 4.0, 4.5), ("there", 4.6, 5.5)]
    assert len(read.problems) == len(bad) * 2 + 3
    (tmp_path / "ep-1.wav").touch()
    path = write_json(tmp_path / "t.json", {"ep-1": [TURN], "ep-4": [TURN]})
    heard = read_this_american_life(path, tmp_path)
    assert [e.audio for e in heard.episodes] == [tmp_path / "ep-1.wav"] and "no audio ep-4" in heard.problems[0]


def test_this_american_life_never_opens_a_pickle(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    (tmp_path / "t.json").write_bytes(pickle.dumps(Trap(), protocol=0))
    with pytest.raises(ValueError, match="not JSON"):
        read_this_american_life(tmp_path / "t.json")
    assert not (tmp_path / "opened").exists()
    with pytest.raises(ValueError, match="holds a list"):
        read_this_american_life(write_json(tmp_path / "t.json", []))
    with pytest.raises(FileNotFoundError):
        read_this_american_life(tmp_path / "none.json")


@needs_data
def test_the_corpora_at_hand_are_read_whole():
    train, dev = (read_speechocean(DATA / "speechocean762", part) for part in ("train", "dev"))
    assert (len(train.recordings), len(dev.recordings)) == (2500, 500) and not train.problems + dev.problems
    speakers = [{r.speaker for r in part.recordings} for part in (train, dev)]
    assert [len(s) for s in speakers] == [125, 25] and not speakers[0] & speakers[1]
    digits = read_digits(DATA / "digits").recordings
    assert len(digits) == 2500 and len(partition(digits, is_digit_test)[1]) == 250
    assert len(read_librispeech(DATA / "librispeech_sample", ["test-clean"]).recordings) == 4
    assert len(read_ljspeech_recordings(DATA / "kathleen").recordings) == 1549
