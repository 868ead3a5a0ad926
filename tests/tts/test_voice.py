"""A voice streams what it synthesizes, the same for any chunk, seed by seed and thread by thread."""

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest
import tiny_voice
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melstate.tts.audio import Audio
from melstate.tts.manifest import Defaults
from melstate.tts.voice import _limit
from melstate.vocoders import wav

TEXT = "Hello there, world. It rains!\n\nA new paragraph begins here?"


@pytest.fixture(scope="module")
def speech(tiny):
    return tiny.synthesize(TEXT)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 32, 33, 100, 10_000])
def test_any_chunk_gives_the_same_audio(tiny, speech, chunk):
    other = tiny.synthesize(TEXT, chunk=chunk)
    assert other.samples.shape == speech.samples.shape
    assert np.abs(other.samples - speech.samples).max() <= 1e-4
    assert (other.words, other.phones) == (speech.words, speech.phones)


def test_audio_is_float32_mono_in_range(speech):
    assert speech.samples.dtype == np.float32 and speech.samples.ndim == 1
    assert speech.sample_rate == 22050
    assert 0.01 < np.abs(speech.samples).max() <= 1.0


def test_stream_starts_small_and_grows(tiny):
    pieces = list(tiny.stream("every good boy deserves fudge and lemonade " * 6))
    sizes = [len(piece.samples) // 256 for piece in pieces]
    assert sizes[0] <= 32 and max(sizes) > 100
    assert pieces[0].progress > 0 and pieces[-1].progress == pytest.approx(1, abs=0.05)


def test_progress_never_goes_back(tiny):
    progress = [piece.progress for piece in tiny.stream(TEXT + "\n\n" + TEXT, chunk=9)]
    assert progress == sorted(progress) and progress[0] < 0.2 and progress[-1] == pytest.approx(1, abs=0.05)


def test_words_and_phones_tile_the_sentences(tiny, speech):
    assert [word.text for word in speech.words] == "hello there world it rains a new paragraph begins here".split()
    assert speech.words[0].start > 0
    gaps = []
    for before, after in zip(speech.phones, speech.phones[1:], strict=False):
        assert before.start < before.end
        gaps.append(after.start - before.end)
        assert (gaps[-1] > 1e-9) == (before.text == "$")
    assert [gap for gap in gaps if gap > 1e-9] == pytest.approx([0.2, 0.6])
    assert speech.phones[-1].end == pytest.approx(speech.seconds, abs=1e-3)
    for word in speech.words:
        assert any(phone.start == word.start for phone in speech.phones)
        assert any(phone.end == word.end for phone in speech.phones)


def test_streamed_times_never_run_ahead_of_the_audio(tiny):
    clock = 0.0
    for piece in tiny.stream(TEXT, chunk=5):
        clock += piece.seconds
        assert all(span.end <= clock + 0.012 for span in piece.words + piece.phones)


def test_silences_scale_with_pause(tiny):
    def silences(pause):
        return [len(p.samples) for p in tiny.stream(TEXT, pause=pause) if not p.samples.any() and len(p.samples)]

    assert silences(1.0) == [4410, 13230]
    assert silences(2.0) == [8820, 26460]
    assert silences(0.0) == []


def test_controls_reach_the_model(tiny, speech):
    assert tiny.synthesize(TEXT, speed=2.0).seconds < 0.8 * speech.seconds
    for control in ({"pitch": 5.0}, {"energy": 6.0}, {"variation": 0.0}, {"seed": 1}):
        other = tiny.synthesize(TEXT, **control)
        assert other.samples.shape == speech.samples.shape, control
        assert np.abs(other.samples - speech.samples).max() > 1e-3, control


def test_defaults_are_the_voices_own(speech):
    slow = tiny_voice.tiny_voice(defaults=Defaults(speed=0.5, gain=-20.0, sentence_pause=0.0))
    assert slow.synthesize("hello there").seconds > 1.4 * tiny_voice.tiny_voice().synthesize("hello there").seconds
    assert np.abs(slow.synthesize(TEXT).samples).max() == pytest.approx(np.abs(speech.samples).max() / 10, rel=0.3)
    no_f0 = tiny_voice.tiny_voice(defaults=Defaults(f0="estimated"))
    assert not np.allclose(no_f0.synthesize(TEXT).samples, speech.samples)


def test_a_sentence_sounds_the_same_whatever_follows_it(tiny):
    alone = tiny.synthesize("Hello there.").samples
    assert np.array_equal(tiny.synthesize("Hello there. And more.").samples[: len(alone)], alone)


def test_seeds_repeat_and_leave_the_global_state_alone(tiny, speech):
    torch.manual_seed(11)
    np.random.seed(11)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    assert np.array_equal(tiny.synthesize(TEXT).samples, speech.samples)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_threads_get_what_they_asked_for(tiny):
    texts = [f"number {'abcdefghij'[i % 10] * (1 + i)} is said." for i in range(24)]
    expected = [tiny.synthesize(text, seed=i).samples for i, text in enumerate(texts)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda pair: tiny.synthesize(pair[1], seed=pair[0]).samples, enumerate(texts)))
    for mine, theirs in zip(expected, got, strict=True):
        assert np.array_equal(mine, theirs)


def test_interleaved_streams_do_not_disturb_each_other(tiny):
    texts = [TEXT, "quite another story."]
    alone = [tiny.synthesize(text).samples for text in texts]
    streams = [tiny.stream(text, chunk=4) for text in texts]
    pieces = [[], []]
    while any(streams):
        for index, stream in enumerate(streams):
            piece = next(stream, None) if stream else None
            if piece is None:
                streams[index] = None
            else:
                pieces[index].append(piece)
    for mine, theirs in zip(alone, pieces, strict=True):
        assert np.abs(Audio.join(theirs).samples - mine).max() <= 1e-4


def test_callers_can_train_between_pieces(tiny):
    stream = tiny.stream(TEXT, chunk=4)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "is empty"), (" \n\t\n ", "white space"), ("?!... —", "no word"), ("\x00", "no word"), ("\ud800", "no word")],
)
def test_nothing_to_speak(tiny, text, reason):
    with pytest.raises(ValueError, match=f"nothing to speak: .*{reason}"):
        tiny.synthesize(text)


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"speed": 0.0}, "speed must be in 0.25..4, got 0"),
        ({"speed": float("nan")}, "speed must be"),
        ({"pitch": 13}, "pitch must be"),
        ({"energy": -21}, "energy must be"),
        ({"pause": -1}, "pause must be"),
        ({"variation": 9}, "variation must be"),
        ({"rate_sd": 3.1}, "rate_sd must be in -3..3"),
        ({"rate_sd": 1, "pitch_sd": 1}, "model 'tiny_acoustic' has not learned pitch_sd, rate_sd; use speed"),
        ({"seed": -1}, "seed must be"),
        ({"chunk": 0}, "chunk must be"),
    ],
)
def test_controls_out_of_range_are_refused_before_any_work(tiny, controls, message):
    with pytest.raises(ValueError, match=message):
        tiny.stream(TEXT, **controls)
    with pytest.raises(TypeError, match="text must be str, got bytes"):
        tiny.stream(b"hello")


def test_long_text_is_taken_a_sentence_at_a_time():
    taken = []

    class Counting(tiny_voice.TinyFrontEnd):
        def sentences(self, text):
            for sentence in super().sentences(text):
                taken.append(sentence)
                yield sentence

    voice = tiny_voice.tiny_voice(front_end=Counting())
    pieces = list(islice(voice.stream("Some words make one sentence. " * 35_000), 20))  # 1 MB
    assert len(pieces) == 20 and len(taken) <= 20


def test_damaged_weights_are_noticed():
    voice = tiny_voice.tiny_voice()
    voice.vocoder.head.weight.data[0, 0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="voice 'tiny': audio of the sentence 'Hello there.' is not finite"):
        voice.synthesize("Hello there. More.")


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300))
def test_any_text_is_spoken_or_refused(tiny, text):
    try:
        audio = tiny.synthesize(text)
    except ValueError as error:
        assert str(error).startswith("nothing to speak")
    else:
        assert np.isfinite(audio.samples).all() and len(audio.samples)


def test_limiter_is_smooth_and_transparent_below_the_knee():
    x = torch.linspace(-4, 4, 80_001)
    y = _limit(x)
    assert torch.equal(y[x.abs() <= 0.8], x[x.abs() <= 0.8])
    assert y.abs().max() <= 1
    slope = y.diff() / x.diff()
    assert slope.min() >= 0 and slope.max() <= 1.01
    assert slope.diff().abs().max() < 0.01


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_saved_audio_reads_back(speech, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    speech.save(path)
    back, rate = wav.read(path)
    assert rate == 22050
    if suffix in (".wav", ".flac"):
        assert np.abs(back - speech.samples).max() < 1e-4
    else:
        assert len(back) >= len(speech.samples) and np.isfinite(back).all()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_save_refuses_an_unknown_suffix_and_leaves_nothing(speech, tmp_path):
    with pytest.raises(ValueError, match="unknown suffix '.xyz'"):
        speech.save(tmp_path / "x.xyz")
    nan = Audio(np.full(100, np.nan, np.float32), 22050)
    with pytest.raises(ValueError, match="NaN"):
        nan.save(tmp_path / "x.wav")
    assert list(tmp_path.iterdir()) == []


def test_joining_needs_one_rate(speech):
    with pytest.raises(ValueError, match="no pieces"):
        Audio.join([])
    with pytest.raises(ValueError, match="one sample rate"):
        Audio.join([speech, Audio(speech.samples, 16000)])


def test_importing_the_package_does_not_import_torch(run_python):
    loaded = run_python("import sys, melstate.tts, melstate.tts.manifest; print(*sys.modules)")
    assert not {"torch", "numpy", "librosa", "lightning"} & set(loaded.split())


def test_public_names():
    import melstate.tts

    assert melstate.tts.__all__ == ["Audio", "Voice"]
    assert melstate.tts.Audio is Audio and melstate.tts.Voice is sys.modules["melstate.tts.voice"].Voice
    with pytest.raises(AttributeError, match="no attribute 'Vioce'"):
        _ = melstate.tts.Vioce
