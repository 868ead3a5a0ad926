"""Times fit the audio sample by sample, subtitles hold the whole text, and coverage sees what was left out."""

import json
import re
import warnings

import pytest
import tiny_voice
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.tts import timestamps
from melstate.tts.acoustic import Frames, SpeechWarning
from melstate.tts.audio import Audio, Coverage, Span
from melstate.vocoders import wav

TEXT = "Hello there, world. It rains!\n\nA new paragraph begins here, and it goes on for longer than a line may be?"


@pytest.fixture(scope="module")
def record(tiny, tmp_path_factory):
    """The .json of a stream, and the audio that was written beside it."""
    folder = tmp_path_factory.mktemp("times")
    pieces = list(tiny.stream(TEXT, chunk=7))
    with timestamps.writer(folder / "x.json", {"voice": "tiny"}) as add:
        for piece in pieces:
            add(piece)
    Audio.join(pieces).save(folder / "x.wav")
    return json.loads((folder / "x.json").read_text()), len(wav.read(folder / "x.wav")[0])


def whole(seconds, rate=22050):
    """Seconds as samples, which they must be."""
    assert abs(seconds * rate - round(seconds * rate)) < 0.02
    return round(seconds * rate)


def test_times_add_up_to_the_samples_written(record):
    found, samples = record
    assert (found["samples"], found["voice"], found["sample_rate"]) == (samples, "tiny", 22050)
    clock = 0
    for sentence, silence in zip(found["sentences"], (0, 4410, 13230), strict=True):
        assert whole(sentence["start"]) == clock + silence
        clock += silence
        for phone in sentence["phones"]:
            assert whole(phone["start"]) == clock and whole(phone["end"]) > clock
            clock = whole(phone["end"])
        assert whole(sentence["end"]) == clock
    assert clock == samples


def test_every_word_is_timed_inside_its_sentence(tiny, record):
    said = list(tiny.front_end.sentences(TEXT))
    for sentence, heard in zip(said, record[0]["sentences"], strict=True):
        assert [word["text"] for word in heard["words"]] == list(sentence.words)
        ends = [heard["start"]]
        edges = {phone[key] for phone in heard["phones"] for key in ("start", "end")}
        for word in heard["words"]:
            assert ends[-1] <= word["start"] < word["end"] <= heard["end"]
            assert {word["start"], word["end"]} <= edges
            ends.append(word["end"])


def test_the_stream_and_the_whole_give_one_file(tiny, tmp_path):
    for suffix in ("srt", "json"):
        with timestamps.writer(tmp_path / f"a.{suffix}") as add:
            for piece in tiny.stream(TEXT, chunk=3):
                add(piece)
        tiny.synthesize(TEXT).save_timestamps(tmp_path / f"b.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json", "a.srt", "b.json", "b.srt"]


def parse(text):
    """(start, end, lines) of SubRip's captions."""
    found = []
    for number, block in enumerate(text.strip().split("\n\n"), start=1):
        head, times, *lines = block.split("\n")
        assert head == str(number) and lines
        parts = re.fullmatch(r"(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})", times).groups()
        clock = [60000 * (60 * int(h) + int(m)) + 1000 * int(s) + int(ms) for h, m, s, ms in (parts[:4], parts[4:])]
        found.append((*clock, lines))
    return found


def test_subtitles_hold_the_text_in_order(tiny, tmp_path):
    spoken = tiny.synthesize(TEXT)
    spoken.save_timestamps(tmp_path / "x.srt")
    found = parse((tmp_path / "x.srt").read_text("utf-8"))
    assert " ".join(line for *_, lines in found for line in lines) == " ".join(TEXT.split())
    assert all(len(lines) <= 2 and max(map(len, lines)) <= 42 for *_, lines in found)
    clock = 0
    for start, end, _ in found:
        assert clock <= start < end
        clock = end
    assert clock == round(1000 * spoken.words[-1].end) and found[0][0] == round(1000 * spoken.words[0].start)


def test_hours_are_written():
    assert timestamps._clock(3600 * 11 + 61.2345) == "11:01:01,234" and timestamps._clock(59.9996) == "00:01:00,000"


def test_no_more_than_a_sentence_is_held(tiny, tmp_path):
    held = []
    with timestamps.writer(tmp_path / "x.json") as add:
        sentences = add.__self__._sentences
        for piece in tiny.stream("Some words make one sentence. " * 40):
            add(piece)
            held.append(len(sentences._phones) + len(sentences._words))
    assert max(held) < 35 and held[-1] == 0


def spans(words):
    return [Span(word, float(i), i + 1.0) for i, word in enumerate(words)]


def test_written_tokens_take_the_times_of_what_is_said_for_them():
    words = "doctor smith's plan cost five dollars and fifty cents or so at two o'clock".split()
    found = timestamps.written("“Dr. Smith's plan cost $5.50 — or so, at 2:00!” ", spans(words))
    assert [(token.text, token.start, token.end) for token in found] == [
        ("“Dr.", 0, 1),
        ("Smith's", 1, 2),
        ("plan", 2, 3),
        ("cost", 3, 4),
        ("$5.50 —", 4, 9),
        ("or", 9, 10),
        ("so,", 10, 11),
        ("at", 11, 12),
        ("2:00!”", 12, 14),
    ]
    assert timestamps.written("[[HH AH0]] you", spans(["[[HH AH0]]", "you"]))[0] == ("[[HH AH0]]", 0, 1)
    assert timestamps.written("", spans(["a"])) == timestamps.written("a", []) == []


TOKENS = st.lists(st.sampled_from(["a", "word", "5", "—", "...", "it's", "(so)", "[[B IY1]]", "café"]), min_size=1)


@settings(max_examples=200, deadline=None)
@given(tokens=TOKENS, words=st.lists(st.sampled_from(["a", "word", "five", "its", "so", "cafe"]), min_size=1))
def test_written_text_is_whole_and_its_times_cover_the_words(tokens, words):
    found = timestamps.written(" ".join(tokens), spans(words))
    assert " ".join(token.text for token in found) == " ".join(tokens)
    assert found[0].start == 0 and found[-1].end == len(words)
    assert all(a.end == b.start for a, b in zip(found, found[1:], strict=False))
    assert all(token.start < token.end for token in found)


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60), marks=st.sets(st.integers(0, 59)))
def test_captions_fit_and_lose_nothing(lengths, marks):
    tokens = [Span("x" * n + "," * (i in marks), 0.3 * i, 0.3 * (i + 1)) for i, n in enumerate(lengths)]
    found = timestamps.captions(tokens)
    assert " ".join(caption.text for caption in found) == " ".join(token.text for token in tokens)
    assert [caption.end for caption in found[:-1]] == [caption.start for caption in found[1:]]
    for caption in found:
        lines = timestamps._two_lines(caption.text).split("\n")
        assert " ".join(lines) == caption.text
        if " " in caption.text:
            assert len(lines) <= 2 and max(map(len, lines)) <= 42 and caption.end - caption.start <= 7.0


def test_subtitles_break_after_marks():
    words = "when the rain stopped, the children ran out and jumped into every puddle between school and park".split()
    tokens = [Span(word, 0.4 * i, 0.4 * (i + 1)) for i, word in enumerate(words)]
    first, second = timestamps.captions(tokens)
    assert first.text == "when the rain stopped," and second.text.startswith("the children ran out")


def test_unknown_suffixes_and_silence_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix '.vtt'; use one of .srt, .json"), timestamps.writer("x.vtt"):
        pass
    with pytest.raises(ValueError, match="no speech"), timestamps.writer(tmp_path / "x.json"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failed_stream_leaves_no_file(tiny, tmp_path):
    with pytest.raises(KeyError), timestamps.writer(tmp_path / "x.json") as add:
        add(tiny.synthesize("Hello."))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_coverage_is_whole_and_adds_up(tiny, record):
    found = tiny.synthesize(TEXT)
    phones = sum(word >= 0 for sentence in tiny.front_end.sentences(TEXT) for word in sentence.word_of)
    assert found.coverage == Coverage(3, 3, phones, phones, 2) and found.coverage.complete
    total = record[0]["coverage"]
    assert (total["complete"], total["share"], total["phones"], total["sentences"]) == (True, 1.0, phones, 3)
    assert sum(sentence["coverage"]["phones"] for sentence in record[0]["sentences"]) == phones
    assert Coverage().complete and Coverage().to_dict()["share"] == 1.0


class Faulty(tiny_voice.TinyAcoustic):
    """Leaves out the third symbol, or says the third again after the fourth."""

    repeats = False

    def stream(self, phones, **options):
        frames = list(super().stream(phones, **options))
        mel, symbol = torch.cat([f.mel for f in frames], 1), torch.cat([f.symbol for f in frames])
        order = [0, 1, 2, 3, 2, *range(4, len(phones))] if self.repeats else [i for i in range(len(phones)) if i != 2]
        at = torch.cat([(symbol == i).nonzero()[:, 0] for i in order])
        yield Frames(mel[:, at], None, symbol[at])


def test_coverage_sees_what_is_left_out_or_repeated():
    voice = tiny_voice.tiny_voice()
    voice.acoustic = Faulty().eval()
    with pytest.warns(SpeechWarning, match=r"'Hello there.': 9 of 10 phones were spoken$"):
        found = voice.synthesize("Hello there.").coverage
    assert found == Coverage(1, 1, 10, 9, 0) and not found.complete and found.to_dict()["share"] == 0.9
    voice.acoustic.repeats = True
    with pytest.warns(SpeechWarning, match=r"10 of 10 phones were spoken, out of order"):
        found = voice.synthesize("Hello there.").coverage
    assert (found.spoken, found.in_order, found.complete) == (10, 0, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_voice.tiny_voice().synthesize("Hello there.")
