"""Listening by striding attention: the words of a decoder that reads what CTC hears, however sound comes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from melstate.asr import Recognizer
from melstate.asr.ctc import best_path
from melstate.asr.decoding import Decoding
from melstate.asr.features import log_mel
from melstate.asr.package import ModelError
from melstate.asr.striding_listener import StridingListener
from melstate.asr.tokens import BLANK, END, FIRST_PIECE
from melstate.asr.transcript import Word

WORDS = ["a", "b", 1.2, "c", "b", "b", 2.5, "a", 3.0, "c", "a", "c"]


class Reader(torch.nn.Module):
    """An attention decoder that writes the tokens of the best CTC path, looking at the last frame of each."""

    def __init__(self, ctc):
        super().__init__()
        self.ctc, self.memory_dim = ctc, ctc.in_features

    def window(self, memory):
        path = self.ctc(memory)[0].argmax(-1).tolist() + [BLANK]
        ends = [(token, place) for place, token in enumerate(path[:-1]) if token not in (BLANK, path[place + 1])]
        return type("Window", (), {"keys": memory, "ends": ends})()

    def forward(self, tokens, window, state):
        heard = [*(state or []), *tokens[0].tolist()]
        frames = window.keys.shape[1]
        count = sum(token >= FIRST_PIECE for token in heard)
        token, place = window.ends[count] if count < len(window.ends) else (END, frames - 1)
        logits = torch.zeros(1, 1, self.ctc.out_features)
        logits[0, 0, token] = 10.0
        return logits, torch.tensor([[place / frames]]), heard


class Babbler(Reader):
    """Writes pieces at random, five for every frame that it looks further."""

    def forward(self, tokens, window, state):
        logits, focus, heard = super().forward(tokens, window, state)
        logits[:] = 0
        logits[0, 0, FIRST_PIECE + 1 + int(BABBLE[len(heard) % 999])] = 10.0
        return logits, torch.full_like(focus, min(0.99, len(heard) // 5 / window.keys.shape[1])), heard


BABBLE = np.random.default_rng(0).integers(10, size=999)


def with_decoder(recognizer, decoder, **settings):
    """The recogniser with another decoder, striding through 4 s."""
    model = copy.copy(recognizer.parts.model)
    model._modules = dict(model._modules)
    model.decoder = decoder
    decoding = replace(recognizer.decoding, method="striding", window=4.0, **settings)
    return Recognizer(recognizer.parts._replace(model=model), recognizer.manifest, decoding)


@pytest.fixture(scope="module")
def reader(recognizer):
    return with_decoder(recognizer, Reader(recognizer.parts.model.ctc))


@pytest.fixture(scope="module")
def untrained(recognizer):
    """A decoder that knows nothing but writes all the time; all of it is let through."""
    decoder = copy.deepcopy(recognizer.parts.model.decoder)
    with torch.no_grad():
        decoder.out.bias[:FIRST_PIECE] = -1e4
        decoder.embedding.weight *= 20
        for layer in decoder.layers:
            layer.query.weight *= 20
    return with_decoder(recognizer, decoder, agreed=0.0)


def best_words(recognizer, audio):
    """What the best CTC path of the whole recording spells."""
    model, tokens = recognizer.parts.model, recognizer.parts.tokens
    with torch.no_grad():
        memory, _ = model.encoder(log_mel(torch.from_numpy(audio)[None], model.mel)[0])
        return tokens.decode(best_path(model.token_log_probs(memory.values)[0]))


def split(listener, audio, size):
    segments = [s for start in range(0, len(audio), size) for s in listener.feed(audio[start : start + size])]
    return segments + listener.finish()


def test_words_and_times_are_those_spoken(reader, recognizer, speak):
    audio, spoken = speak(WORDS)
    heard = reader.transcribe(audio, 16000)
    assert isinstance(reader.listener(16000), StridingListener)
    assert [segment.text for segment in heard.segments] == ["a b", "c b b", "a", "c a c"]
    for word, (text, start, end) in zip(heard.words, spoken, strict=True):
        assert word.text == text and abs(word.start - start) < 0.15 and abs(word.end - end) < 0.2
        assert 0 < word.probability <= 1 and word.speaker is None
    by_ctc = recognizer.transcribe(audio, 16000)
    assert [(w.text, w.start) for w in by_ctc.words] == [(w.text, w.start) for w in heard.words]
    assert heard.seconds == by_ctc.seconds
    assert recognizer.transcribe(audio, 16000, method="ctc") == by_ctc


@pytest.mark.parametrize("size", [160, 3333, 50000])
@pytest.mark.parametrize("who", ["reader", "untrained"])
def test_any_split_gives_the_same_segments(request, speak, who, size):
    recognizer = request.getfixturevalue(who)
    audio, _ = speak(WORDS * 2)
    whole = recognizer.transcribe(audio, 16000)
    listener = recognizer.listener(16000)
    segments = split(listener, audio, size)
    assert len(whole.segments) >= (7 if who == "reader" else 1)
    assert [s.text for s in segments] == [s.text for s in whole.segments]
    for one, other in zip([w for s in segments for w in s.words], whole.words, strict=True):
        assert (one.start, one.end) == (other.start, other.end)
        assert one.probability == pytest.approx(other.probability, abs=1e-3)
    ends = [0.0, *(word.end for word in whole.words)]
    assert all(end <= word.start <= word.end for end, word in zip(ends, whole.words, strict=False))
    assert listener.finish() == [] and listener.partial == ""
    with pytest.raises(RuntimeError, match="finished"):
        listener.feed(audio)


def test_segments_come_while_sound_goes_on(reader, speak):
    audio, _ = speak(WORDS)
    listener = reader.listener(16000)
    segments, partials = [], []
    for start in range(0, len(audio), 8000):
        segments += listener.feed(audio[start : start + 8000])
        partials.append(listener.partial)
    assert [segment.text for segment in segments] == ["a b", "c b b", "a"]
    assert "c b b" in partials


@pytest.mark.parametrize("samples", [0, 1, 100, 16000, 320000])
@pytest.mark.parametrize("who", ["reader", "untrained"])
def test_silence_says_nothing(request, who, samples):
    recognizer = request.getfixturevalue(who)
    assert recognizer.transcribe(np.zeros(samples, np.float32), 16000).words == ()
    assert recognizer.transcribe(np.full(samples, 1e-5, np.float32), 16000).words == ()


def test_talk_without_pause_is_cut_in_its_gaps(recognizer, speak):
    audio, _ = speak(["a", "b", "c"] * 20, pause=0.3)
    short = with_decoder(recognizer, Reader(recognizer.parts.model.ctc), longest=4.0)
    heard = short.transcribe(audio, 16000)
    assert len(heard.segments) >= 5 and heard.text == best_words(recognizer, audio)
    assert all(segment.end - segment.start < 10 for segment in heard.segments)


def held(listener):
    return listener._log_probs.size + listener._state.memory.numel() + listener._audio.size


@pytest.mark.parametrize("who", ["reader", "untrained", "babbler"])
def test_memory_does_not_grow(request, recognizer, speak, who):
    if who == "babbler":
        strider = with_decoder(recognizer, Babbler(recognizer.parts.model.ctc))
    else:
        strider = request.getfixturevalue(who)
    decoding = replace(strider.decoding, longest=8.0)
    listener = Recognizer(strider.parts, strider.manifest, decoding).listener(16000, speakers=True)
    audio, _ = speak(["a", "b", 1.0] * 3 + [3.0])
    sizes, written = [], []
    for _ in range(16):
        listener.feed(audio)
        sizes.append(held(listener))
        written.append(len(listener._written))
    assert max(sizes[3:]) <= 1.3 * max(sizes[:3]) + 5000
    assert max(written[3:]) <= 1.3 * max(written[:3]) + 50


def test_text_that_ctc_cannot_place_is_dropped(recognizer, speak):
    audio, _ = speak(["a", "b", 1.0] * 4)
    babble = with_decoder(recognizer, Babbler(recognizer.parts.model.ctc))
    assert babble.transcribe(audio, 16000).words == ()


def test_improbable_segments_are_noise(recognizer, speak):
    strict = with_decoder(recognizer, Reader(recognizer.parts.model.ctc), agreed=1.01)
    assert strict.transcribe(speak(["a", "b"])[0], 16000).words == ()


def test_speakers_are_numbered(reader, speak):
    audio, _ = speak(WORDS)
    heard = reader.transcribe(audio, 16000, speakers=True)
    assert [word.text for word in heard.words] == [word for word in WORDS if isinstance(word, str)]
    assert heard.words[0].speaker == 0 and all(word.speaker is not None for word in heard.words)
    assert all(len({word.speaker for word in segment.words}) == 1 for segment in heard.segments)


def test_a_model_without_decoder_cannot_stride(recognizer, speak):
    mute = with_decoder(recognizer, None)
    assert mute.methods == ("ctc",) and recognizer.methods == ("ctc", "striding")
    with pytest.raises(ValueError, match="needs an attention decoder; this recogniser has ctc"):
        mute.transcribe(speak(["a"])[0], 16000)
    assert mute.transcribe(speak(["a"])[0], 16000, method="ctc").text == "a"


def test_unknown_methods_are_refused(recognizer, speak):
    with pytest.raises(ValueError, match="words, ctc, striding, got 'guessing'"):
        recognizer.transcribe(speak(["a"])[0], 16000, method="guessing")
    with pytest.raises(ValueError, match="window must be at least 1 second"):
        Decoding(window=0.5)


def test_a_folder_says_how_it_listens(recognizer, tmp_path):
    by_striding = replace(recognizer.decoding, method="striding")
    Recognizer(recognizer.parts, recognizer.manifest, by_striding).save(tmp_path / "strides", "licence text")
    assert isinstance(Recognizer.load(tmp_path / "strides").listener(16000), StridingListener)
    without = copy.deepcopy(recognizer.parts.model)
    without.decoder, without.config = None, without.config | {"decoder": None}
    parts = recognizer.parts._replace(model=without)
    Recognizer(parts, recognizer.manifest, by_striding).save(tmp_path / "mute", "licence text")
    with pytest.raises(ModelError, match="needs an attention decoder"):
        Recognizer.load(tmp_path / "mute")


def test_words_are_forgotten_where_they_end(reader):
    """A mark, a lone boundary or nothing may stand before the words that are kept."""
    listener = reader.listener(16000)
    (piece,) = reader.parts.tokens.encode("a")
    words = [Word("a", t, t + 0.2, 1.0) for t in (0.0, 1.0, 2.0)]
    for marks in ([], [END], [2, END]):
        listener._written = [type(w)(*w) for w in writing([piece, *marks, piece, *marks, piece])]
        listener._log_probs = np.zeros((200, 1), np.float32)
        listener._first = 0
        listener._forget(words, 2)
        assert [w.token for w in listener._written] == [piece]
        assert listener._first == round(1.6 / 0.04)


def writing(tokens):
    from melstate.asr.striding import Written

    return [Written(token, place) for place, token in enumerate(tokens)]
