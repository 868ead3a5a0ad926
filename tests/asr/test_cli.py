"""`transcribe` as a command: clean standard output in every format, one line and a code for every failure."""

import copy
import io
import json
import re

import numpy as np
import pytest
import soundfile

from melstate.asr import Recognizer
from melstate.asr.cli import main
from melstate.asr.output import FORMATS, Writer, clock
from melstate.asr.transcript import Segment, Word
from melstate.vocoders import wav


@pytest.fixture(scope="module")
def place(recognizer, speak, tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    recognizer.save(place / "tones", "licence text")
    wav.write(place / "talk.wav", speak(["a", "b", 1.2, "c"])[0], 16000)
    wav.write(place / "silence.wav", np.zeros(16000, np.float32), 16000)
    (place / "text.wav").write_text("not audio")
    return place


@pytest.fixture
def run(place, capsys, monkeypatch):
    def call(*args, stdin=None):
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", type("In", (), {"buffer": io.BytesIO(stdin)})())
        code = main([*args, "--model", f"{place}/tones", "--threads", "1"])
        return code, *capsys.readouterr()

    return call


def test_text_is_a_line_for_each_segment(run, place):
    assert run(f"{place}/talk.wav") == (0, "a b\nc\n", "")


def test_standard_input(run, place):
    code, out, _ = run("-", stdin=(place / "talk.wav").read_bytes())
    assert (code, out) == (0, "a b\nc\n")


def test_silence_is_nothing(run, place):
    assert run(f"{place}/silence.wav") == (0, "", "")
    assert run(f"{place}/silence.wav", "-f", "srt") == (0, "", "")
    code, out, _ = run(f"{place}/silence.wav", "-f", "json")
    assert json.loads(out) == {"file": f"{place}/silence.wav", "segments": [], "seconds": 1.0}


def test_json_and_words(run, place):
    _, out, _ = run(f"{place}/talk.wav", "-f", "json", "--words", "--speakers")
    result = json.loads(out)
    assert [s["text"] for s in result["segments"]] == ["a b", "c"]
    words = [w for s in result["segments"] for w in s["words"]]
    assert [w["text"] for w in words] == ["a", "b", "c"] and words[0]["speaker"] == 0
    assert all(0 <= w["start"] < w["end"] <= result["seconds"] and 0 < w["probability"] <= 1 for w in words)


def test_every_format_is_what_it_says(run, place):
    outs = {kind: run(f"{place}/talk.wav", "-f", kind)[1] for kind in FORMATS}
    time = r"\d\d:\d\d:\d\d{}\d\d\d"
    cue = rf"{time} --> {time}\n"
    assert re.fullmatch(rf"1\n{cue}a b\n\n2\n{cue}c\n\n".replace("{}", ","), outs["srt"])
    assert re.fullmatch(rf"WEBVTT\n\n{cue}a b\n\n{cue}c\n\n".replace("{}", r"\."), outs["vtt"])
    rows = [line.split("\t") for line in outs["tsv"].splitlines()]
    assert rows[0] == ["start", "end", "speaker", "probability", "text"] and [row[4] for row in rows[1:]] == [
        "a b",
        "c",
    ]
    fields = [line.split() for line in outs["rttm"].splitlines()]
    assert all(len(f) == 10 and f[0] == "SPEAKER" and float(f[4]) > 0 for f in fields) and len(fields) == 2


def test_output_files_and_several_inputs(run, place):
    code, out, _ = run(f"{place}/talk.wav", f"{place}/talk.wav", "-o", f"{place}/out.txt")
    assert (code, out) == (0, "") and (place / "out.txt").read_text() == "a b\nc\n" * 2


def test_what_was_said_before_the_damage_is_written(run, place, speak):
    """Samples that are no numbers in the middle: the words before, a whole document, one line and a code."""
    audio = speak(["a", "b", 1.2, "c", 6.0, "a"])[0]
    soundfile.write(place / "torn.wav", np.where(np.arange(len(audio)) < 7 * 16000, audio, np.nan), 16000, "FLOAT")
    code, out, err = run(f"{place}/torn.wav")
    assert (code, out) == (3, "a b\nc\n") and err.startswith("transcribe: ") and err.count("\n") == 1
    code, out, err = run(f"{place}/torn.wav", "--format", "json")
    assert code == 3 and [segment["text"] for segment in json.loads(out)["segments"]] == ["a b", "c"]


def test_stream_shows_partial_words_apart_from_the_result(run, place):
    code, out, err = run(f"{place}/talk.wav", "--stream")
    assert (code, out) == (0, "a b\nc\n")
    assert all(line.startswith("…") for line in err.splitlines())


def test_methods(run, place, recognizer, monkeypatch):
    assert run(f"{place}/talk.wav", "--method", "ctc") == (0, "a b\nc\n", "")
    assert run(f"{place}/silence.wav", "--method", "striding") == (0, "", "")
    code, out, _ = run(f"{place}/talk.wav", "--method", "striding", "--speakers", "-f", "json")
    assert code == 0 and json.loads(out)["seconds"] > 2
    asked = []
    monkeypatch.setattr(Recognizer, "listener", lambda self, *_, **options: asked.append(options) or 1 / 0)
    for method in ("striding", "ctc"):
        run(f"{place}/talk.wav", "--method", method)
    run(f"{place}/talk.wav")
    assert [options["method"] for options in asked] == ["striding", "ctc", None]


def test_a_model_without_decoder_cannot_stride(place, recognizer, capsys):
    model = copy.deepcopy(recognizer.parts.model)
    model.decoder, model.config = None, model.config | {"decoder": None}
    Recognizer(recognizer.parts._replace(model=model), recognizer.manifest).save(place / "mute", "licence text")
    assert main([f"{place}/talk.wav", "--model", f"{place}/mute", "--method", "striding", "--threads", "1"]) == 4
    out, err = capsys.readouterr()
    assert out == "" and "needs an attention decoder" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "args"),
    [
        (2, []),
        (2, ["-", "-"]),
        (2, ["x.wav", "--format", "doc"]),
        (2, ["x.wav", "-o", "x.doc"]),
        (2, ["a.wav", "b.wav", "-f", "srt"]),
        (2, ["x.wav", "--threads", "0"]),
        (2, ["x.wav", "--method", "guess"]),
        (3, ["{place}/no.wav"]),
        (3, ["{place}/text.wav"]),
        (5, ["{place}/talk.wav", "-o", "{place}/no/out.txt"]),
        (5, ["{place}/talk.wav", "--device", "nonsense"]),
    ],
)
def test_failures_have_a_code_and_one_line(run, place, code, args):
    got, out, err = run(*(arg.format(place=place) for arg in args))
    assert got == code and out == ""
    assert err.startswith("transcribe: ") and err.count("\n") == 1


def test_unknown_models_are_four(capsys, place):
    for model in ("no-such", "../x", f"{place}/nothing"):
        assert main([f"{place}/talk.wav", "--model", model]) == 4
        assert capsys.readouterr().err.startswith("transcribe: model ")


def test_bad_standard_input_is_three(run):
    code, out, err = run("-", stdin=b"nothing like sound")
    assert (code, out) == (3, "") and "standard input" in err


def test_speakers_are_named_in_text():
    segment = Segment((Word("hi", 0.5, 1.0, 0.9, 1),))
    assert Writer("x", "txt").segment(segment) == "speaker 2: hi\n"
    assert Writer("my talk.wav", "rttm").segment(segment).startswith("SPEAKER my_talk.wav 1 0.500 0.500 ")
    assert clock(3723.4567) == "01:02:03.457" and clock(360000) == "100:00:00.000"
    with pytest.raises(ValueError, match="format"):
        Writer("x", "doc")
