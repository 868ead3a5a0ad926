"""Listening by words: phones, a tree of pronunciations and a language model find the same words, and only theirs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from melstate.asr import Recognizer, package
from melstate.asr.backoff import BackoffModel, encode
from melstate.asr.beam_listener import BeamListener, Weights
from melstate.asr.ctc import ctc_loss
from melstate.asr.decoding import Decoding
from melstate.asr.language_model import LanguageModel
from melstate.asr.package import ModelError
from melstate.asr.pronunciations import Pronunciations
from melstate.asr.tokens import BLANK

WORDS = ["a", "b", 1.2, "c", "b", "b", 2.5, "a"]
PHONES = {"a": 1, "b": 2, "c": 3}
SPOKEN = {"a": [(1,)], "b": [(2,)], "c": [(3,)], "be": [(2, 2)]}
BY_WORDS = Decoding(edge=0.3, method="words", width=40, language=0.2, attention=0.0)


@pytest.fixture(scope="module")
def speller(recognizer):
    """The recogniser of tones, its pieces taken for phones."""
    model = copy.deepcopy(recognizer.parts.model)
    pieces = [BLANK, *(recognizer.parts.tokens.encode(letter)[0] for letter in PHONES)]
    model.phones = torch.nn.Linear(model.ctc.in_features, len(pieces))
    model.config = model.config | {"phones": len(pieces)}
    with torch.no_grad():
        model.phones.weight.copy_(model.ctc.weight[pieces])
        model.phones.bias.copy_(model.ctc.bias[pieces])
    parts = recognizer.parts._replace(model=model.eval(), spoken=Pronunciations.build(SPOKEN))
    return Recognizer(parts, recognizer.manifest, BY_WORDS)


def test_words_and_times_are_those_spoken(speller, speak):
    audio, spoken = speak(WORDS)
    heard = speller.transcribe(audio, 16000)
    assert heard.text == "a b c b b a" and [s.text for s in heard.segments] == ["a b", "c b b", "a"]
    for word, (_, start, end) in zip(heard.words, spoken, strict=True):
        assert abs(word.start - start) < 0.15 and abs(word.end - end) < 0.2 and 0.5 < word.probability <= 1


def test_words_without_pronunciation_are_never_written(speller, speak):
    parts = speller.parts._replace(spoken=Pronunciations.build({"a": [(1,)], "bee": [(2,)]}))
    assert (
        Recognizer(parts, speller.manifest, replace(BY_WORDS, agreed=0.0)).transcribe(speak(["a", "b"])[0], 16000).text
        == "a bee"
    )
    # A word of three phones of which two are heard is no word at all.
    parts = speller.parts._replace(spoken=Pronunciations.build({"abc": [(1, 2, 3)]}))
    assert Recognizer(parts, speller.manifest, BY_WORDS).transcribe(speak(["a", "b"])[0], 16000).text == ""


@pytest.mark.parametrize("size", [160, 3333, 10**6])
def test_any_split_gives_the_same_segments(speller, speak, size):
    audio, _ = speak(WORDS)
    listener, segments, partials = speller.listener(16000), [], []
    for start in range(0, len(audio), size):
        segments += listener.feed(audio[start : start + size])
        partials.append(listener.partial)
    segments += listener.finish()
    whole = speller.transcribe(audio, 16000).words
    assert [(w.text, w.start, w.end) for s in segments for w in s.words] == [(w.text, w.start, w.end) for w in whole]
    if size < 10**4:
        assert "c b b" in " | ".join(partials)


def test_memory_does_not_grow(speller, speak):
    listener = speller.listener(16000)
    audio, _ = speak(["a", "b", 1.0] * 3 + [3.0])
    sizes = []
    for _ in range(5):
        listener.feed(audio)
        sizes.append(listener._log_probs.size + listener._phones.size + listener._memory.numel())
    assert max(sizes[1:]) <= 1.2 * sizes[0] + 5000


@pytest.mark.parametrize("samples", [0, 1, 16000])
def test_silence_says_nothing(speller, samples):
    assert speller.transcribe(np.zeros(samples, np.float32), 16000).words == ()


def test_words_that_the_pieces_did_not_hear_are_noise(speller, speak):
    """Two words swap their phones: what is heard by phones has no support by pieces."""
    audio, _ = speak(["a", "b"])
    swapped = speller.parts._replace(spoken=Pronunciations.build(SPOKEN | {"b": [(1,)], "a": [(2,)]}))
    for agreed, text in ((0.0, "b a"), (0.7, "")):
        hasty = Recognizer(swapped, speller.manifest, replace(BY_WORDS, agreed=agreed))
        assert hasty.transcribe(audio, 16000).text == text
    strict = Recognizer(speller.parts, speller.manifest, replace(BY_WORDS, agreed=0.7))
    assert strict.transcribe(audio, 16000).text == "a b"


def test_readings_are_weighed_by_pieces_and_attention(speller, speak):
    """Each reading's share by pieces is what the CTC loss says of it."""
    decoding = replace(BY_WORDS, pieces=0.7, pause=9.0)
    listener = BeamListener(speller.parts, 16000, decoding)
    listener.feed(speak(["a", "b", "b"])[0])
    weighed = listener.readings()
    log_probs = torch.from_numpy(listener._log_probs[: listener._seen])[None]
    assert len(weighed) >= 2
    for reading, _, pieces, _ in weighed:
        target = torch.tensor([speller.parts.tokens.encode(reading.text)])
        count, frames = torch.tensor([target.shape[1]]), torch.tensor([listener._seen])
        expected = -float(ctc_loss(log_probs, frames, target, count)) * max(1, int(count))
        assert pieces == pytest.approx(expected, rel=1e-4)
    best = max(weighed, key=lambda one: 0.3 * one.reading.acoustic + one.reading.language + 0.7 * one.pieces)
    assert listener._choose([one.reading for one in weighed], listener._seen) == best.reading
    longest = max(weighed, key=lambda one: len(one.reading.words)).reading
    assert listener._by_pieces([[7] * (listener._seen + 1)], listener._seen) == [-np.inf]
    assert np.isfinite(Weights(1.0, 0.0, 0.0, 0.0).total(weighed[0]._replace(pieces=-np.inf, reading=longest)))
    for final_language, final_bonus in ((0.0, 0.0), (3.0, -9.0)):
        chosen = replace(BY_WORDS, final_language=final_language, final_bonus=final_bonus, pause=9.0)
        listener.decoding = chosen
        language = speller.parts.language
        best = max(
            weighed,
            key=lambda one: (
                one.reading.acoustic
                + final_language * language.log_probability(one.reading.words)
                + final_bonus * len(one.reading.words)
            ),
        )
        assert listener._choose([one.reading for one in weighed], listener._seen) == best.reading


def test_it_comes_back_from_its_folder(speller, speak, tmp_path):
    speller.save(tmp_path / "words", "licence text", half=False)
    again = Recognizer.load(tmp_path / "words")
    audio, _ = speak(WORDS)
    assert again.methods == ("words", "ctc", "striding") and again.decoding == BY_WORDS
    assert again.transcribe(audio, 16000) == speller.transcribe(audio, 16000)
    assert again.transcribe(audio, 16000, method="ctc").text == "a b c b b a"
    (tmp_path / "words" / package.PRONUNCIATIONS).write_bytes(b"x")
    with pytest.raises(ModelError, match="SHA-256"):
        Recognizer.load(tmp_path / "words")


def test_what_cannot_search_words_says_so(speller, recognizer, speak, tmp_path):
    audio, _ = speak(["a"])
    with pytest.raises(ValueError, match="'words' needs pronunciations and a phone head; this recogniser has ctc, str"):
        recognizer.transcribe(audio, 16000, method="words")
    with pytest.raises(ValueError, match="use 'ctc'"):
        BeamListener(recognizer.parts, 16000, BY_WORDS)
    Recognizer(recognizer.parts, recognizer.manifest, BY_WORDS).save(tmp_path / "poor", "licence text")
    with pytest.raises(ModelError, match="needs pronunciations"):
        Recognizer.load(tmp_path / "poor")
    strange = speller.parts._replace(spoken=Pronunciations.build({"a": [(9,)]}))
    Recognizer(strange, speller.manifest, BY_WORDS).save(tmp_path / "strange", "licence text")
    with pytest.raises(ModelError, match="phones up to 9, the model knows 4"):
        Recognizer.load(tmp_path / "strange")


def test_common_words_are_likelier_than_rare_ones_that_sound_alike(speller, speak):
    spoken = Pronunciations.build({"a": [(1,)], "eh": [(1,)]})
    for common, rare in (("a", "eh"), ("eh", "a")):
        codes = {1: encode(np.log([0.1, 0.8, 0.1])), 2: np.zeros(0, np.uint8), 3: np.zeros(0, np.uint8)}
        grams = {1: np.arange(1, 4)[:, None], 2: np.zeros((0, 2), np.int64), 3: np.zeros((0, 3), np.int64)}
        english = BackoffModel([common, rare], grams, codes)
        language = LanguageModel.train(["zz"], spellings=["a", "eh"], general=english)
        parts = speller.parts._replace(spoken=spoken, language=language)
        decoding = replace(BY_WORDS, agreed=0.0)  # "eh" is not what the pieces were fitted to
        assert Recognizer(parts, speller.manifest, decoding).transcribe(speak(["a"])[0], 16000).text == common
