"""`melstate align`: words and phones where the aligner puts them, TextGrids that Praat reads, faults in one line."""

import json
import re

import numpy as np
import pytest
import tiny_voice
import torch
from hypothesis import given
from hypothesis import strategies as st

from melstate.recipes import align_recording, textgrid
from melstate.tts.audio import Span
from melstate.tts.neural_hmm import NeuralHMM
from melstate.tts.text import FrontEnd
from melstate.tts.voice_folder import add_model
from melstate.vocoders import wav
from melstate.vocoders.mel import MelConfig


def read_textgrid(text):
    """{tier: [(start, end, label)]} as Praat reads: of all that stands free, only numbers, texts and flags count."""
    free = re.sub(r"\[\d*\]", " ", text)  # not free-standing
    tokens = re.findall(r'"(?:[^"]|"")*"|<\w+>|(?<![^\s])-?[\d.]+(?![^\s])', free)
    values = iter([t[1:-1].replace('""', '"') if t[0] == '"' else t if t[0] == "<" else float(t) for t in tokens])
    assert [next(values) for _ in range(2)] == ["ooTextFile", "TextGrid"]
    start, end, exists, tiers = (next(values) for _ in range(4))
    assert (start, exists) == (0.0, "<exists>") and end > 0
    found = {}
    for _ in range(int(tiers)):
        kind, name, first, last, count = (next(values) for _ in range(5))
        assert (kind, first, last) == ("IntervalTier", 0.0, end)
        found[name] = [(next(values), next(values), next(values)) for _ in range(int(count))]
    assert list(values) == []
    return found, end


@given(
    labels=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8),
    cuts=st.sets(st.integers(1, 2**20), min_size=16, max_size=16),
)
def test_textgrids_read_back_without_gaps(labels, cuts):
    """Spans with silence before, between and behind them; labels with quotes and line breaks in them too."""
    times = [cut / 22050 for cut in sorted(cuts)]
    spans = [Span(label, times[2 * i], times[2 * i + 1]) for i, label in enumerate(labels)]
    seconds = times[-1] + 1e-5
    found, end = read_textgrid(textgrid.text({"words": spans, 'a "tier"': []}, seconds))
    assert end == seconds and found['a "tier"'] == [(0.0, seconds, "")]
    clock = 0.0
    for start, stop, _ in found["words"]:
        assert start == clock < stop
        clock = stop
    assert clock == seconds
    assert [item for item in found["words"] if item in {(s.start, s.end, s.text) for s in spans}] == [
        (s.start, s.end, s.text) for s in spans
    ]


def test_spans_that_touch_or_fill_all_get_nothing_between():
    spans = [Span("a", 0.0, 0.5), Span("b", 0.5, 1.0)]
    assert textgrid.intervals(spans, 1.0) == spans
    assert textgrid.intervals([], 1.0) == [Span("", 0.0, 1.0)]


@pytest.mark.parametrize(
    "spans",
    [[("a", 0.5, 0.4)], [("a", 0.5, 0.5)], [("a", 0.1, 0.5), ("b", 0.4, 0.6)], [("a", 0.5, 1.1)], [("a", -0.1, 0.5)]],
)
def test_spans_that_do_not_fit_are_refused(spans, tmp_path):
    with pytest.raises(ValueError, match="interval '[ab]' from .* does not fit"):
        textgrid.write(tmp_path / "x.TextGrid", {"words": [Span(*span) for span in spans]}, 1.0)
    with pytest.raises(ValueError, match="a tier and a length, got 0 tiers over 1 s"):
        textgrid.write(tmp_path / "x.TextGrid", {}, 1.0)
    assert list(tmp_path.iterdir()) == []


class Even:
    """Gives every symbol the same frames, the last the rest."""

    kind, mel, frames_per_symbol = "even", MelConfig(), 1

    def durations(self, batch):
        frames, symbols = int(batch.mel_lengths[0]), int(batch.phone_lengths[0])
        self.each = frames // symbols
        return torch.tensor([[self.each] * (symbols - 1) + [frames - self.each * (symbols - 1)]])


def speech(seconds, rate=22050, before=0.5):
    """A buzz with half a second of silence before it."""
    t = np.arange(int(seconds * rate)) / rate
    buzz = 0.2 * np.sign(np.sin(2 * np.pi * 150 * t)) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return np.concatenate([np.zeros(int(before * rate)), buzz]).astype(np.float32)


def test_times_count_from_the_recordings_start(tmp_path):
    wav.write(tmp_path / "x.wav", speech(1.5, 16000), 16000)
    even = Even()
    found = align_recording.align(even, FrontEnd(), tmp_path / "x.wav", "Hi, you. Go!")
    assert found.seconds == pytest.approx(2.0, abs=1e-3)
    assert [span.text for span in found.words] == ["Hi", "you", "Go"]
    phones = ["HH", "AY1", "Y", "UW1", "G", "OW1"]
    assert [span.text for span in found.phones] == phones
    frame = 256 / 22050
    # ^ HH AY1 , Y UW1 . G OW1 ! $ from a margin of 50 ms before the sound on
    places = [1, 2, 4, 5, 7, 8]
    first = found.phones[0].start - even.each * frame
    assert first == pytest.approx(0.45, abs=0.05)
    for span, place in zip(found.phones, places, strict=True):
        assert span.start == pytest.approx(first + place * even.each * frame, abs=1e-9)
        assert span.end == pytest.approx(span.start + even.each * frame, abs=1e-9)
    assert found.words[1] == ("you", found.phones[2].start, found.phones[3].end)


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_kinds):
    """A recording, and a tiny voice with a neural HMM."""
    monkeypatch.chdir(tmp_path)
    wav.write(tmp_path / "x.wav", speech(1.2), 22050)
    tiny_voice.tiny_voice().save(tmp_path / "tiny")
    small = {"dim": 16, "hidden": 16, "encoder_blocks": 1, "encoder_options": {"conv": 0}, "prenet": 8}
    torch.manual_seed(0)
    add_model(tmp_path / "tiny", NeuralHMM(**small, context=16, output=12))
    monkeypatch.setattr(align_recording.torch, "set_num_threads", lambda count: None)
    return tmp_path


def run(*args, voice="./tiny"):
    return align_recording.main([*args, "--voice", voice])


def test_the_voices_neural_hmm_aligns(here, capsys):
    assert run("x.wav", "Go on.", "-o", "x.TextGrid") == 0
    assert capsys.readouterr().out == "x.TextGrid: 2 words, 4 phones in 1.70 s\n"
    found, seconds = read_textgrid((here / "x.TextGrid").read_text("utf-8"))
    assert list(found) == ["words", "phones"] and seconds == pytest.approx(1.7, abs=1e-3)
    assert [label for *_, label in found["words"] if label] == ["Go", "on"]
    assert [label for *_, label in found["phones"] if label] == ["G", "OW1", "AA1", "N"]
    (here / "x.txt").write_text("Go on.")
    assert run("x.wav", "-f", "x.txt", "-o", "x.json", "--method", "posterior", "--model", "neural_hmm") == 0
    record = json.loads((here / "x.json").read_text())
    assert (record["audio"], record["text"], record["aligner"]) == ("x.wav", "Go on.", "neural_hmm")
    assert [word["text"] for word in record["words"]] == ["Go", "on"] and len(record["phones"]) == 4


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["none.wav", "Go.", "-o", "y.json"], 3, "none.wav: no such file"),
        (["bad.wav", "Go.", "-o", "y.json"], 3, "bad.wav: not readable as audio"),
        (["quiet.wav", "Go.", "-o", "y.json"], 3, "quiet.wav: silent; there is nothing to align"),
        (["x.wav", "?!", "-o", "y.json"], 3, "nothing to align: '?!' holds no word"),
        (["x.wav", "", "-o", "y.json"], 3, "nothing to align: ''"),
        (["x.wav", "go on " * 20, "-o", "y.json"], 3, "x.wav: 10"),
        (["x.wav", "-f", "none.txt", "-o", "y.json"], 3, "none.txt"),
        (["x.wav", "-f", "bad.wav", "-o", "y.json"], 3, "bad.wav: not UTF-8 text (byte 0)"),
        (["x.wav", "Go.", "-o", "none/y.json"], 5, "none/y.json: cannot be written"),
        (["x.wav", "Go.", "-o", "y.json", "--aligner", "none"], 4, "none"),
        (["x.wav", "Go.", "-o", "y.json", "--model", "tiny_acoustic"], 4, "cannot align; those that can: neural_hmm"),
        (["x.wav", "Go.", "-o", "y.json", "--model", "lina"], 4, "has no model 'lina'"),
    ],
)
def test_faults_are_one_line_and_leave_nothing(here, capsys, args, code, message):
    (here / "bad.wav").write_bytes(b"\xff" * 100)
    wav.write(here / "quiet.wav", np.zeros(9000, np.float32), 22050)
    assert run(*args) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("align: ") and err.count("\n") == 1 and message in err
    assert not list(here.glob("*y.json*"))


def test_too_short_for_its_text_names_both_lengths(here):
    aligner = align_recording.voice_aligner("./tiny")
    with pytest.raises(
        ValueError, match=r"x.wav: \d+ frames of speech \(1.\d\d s\) for 83 symbols, which need at least 166"
    ):
        align_recording.align(aligner, FrontEnd(), here / "x.wav", "go on " * 20)


def test_too_much_at_once_is_refused(here, monkeypatch):
    monkeypatch.setattr(align_recording, "MOST_PAIRS", 500)
    with pytest.raises(ValueError, match=r"frames × 7 symbols are more than the 500 .* cut it between sentences"):
        align_recording.align(align_recording.voice_aligner("./tiny"), FrontEnd(), here / "x.wav", "Go on.")


def test_a_voice_without_an_aligner_says_so(here, capsys):
    tiny_voice.tiny_voice().save(here / "tiny")
    assert run("x.wav", "Go.", "-o", "y.json") == 4
    assert "its model 'tiny_acoustic' cannot align; those that can: none; or give --aligner" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x.wav", "-o", "y.json"], "give either TEXT or -f FILE"),
        (["x.wav", "a", "-f", "b", "-o", "y.json"], "give either TEXT or -f FILE"),
        (["x.wav", "a", "-o", "y.ctm"], "unknown suffix '.ctm'; use .TextGrid or .json"),
        (["x.wav", "a"], "required: -o/--output"),
    ],
)
def test_usage_errors(here, capsys, args, message):
    with pytest.raises(SystemExit) as caught:
        run(*args)
    assert caught.value.code == 2 and message in capsys.readouterr().err
