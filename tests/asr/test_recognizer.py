"""A recogniser as users have it: the same words however sound comes, nothing out of nothing, folders that are safe."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from melstate.asr import Recognizer, package
from melstate.asr.beam_listener import BeamListener
from melstate.asr.decoding import Decoding
from melstate.asr.listener import NEVER, Listener, stretches
from melstate.asr.package import ModelError
from melstate.asr.sound import SoundError
from melstate.asr.transcript import Word
from melstate.vocoders import wav

WORDS = ["a", "b", 1.2, "c", "b", "b", 2.5, "a"]


def pieces(audio, sizes):
    start = 0
    while start < len(audio):
        size = next(sizes)
        yield audio[start : start + size]
        start += size


def test_words_and_times_are_those_spoken(recognizer, speak):
    audio, spoken = speak(WORDS)
    heard = recognizer.transcribe(audio, sample_rate=16000)
    assert heard.text == "a b c b b a" == " ".join(word.text for word in heard.words)
    assert [segment.text for segment in heard.segments] == ["a b", "c b b", "a"]
    assert heard.seconds == pytest.approx(len(audio) / 16000)
    for word, (_, start, end) in zip(heard.words, spoken, strict=True):
        assert abs(word.start - start) < 0.15 and abs(word.end - end) < 0.2
        assert 0 < word.probability <= 1 and word.speaker is None
    ends = [0.0, *(word.end for word in heard.words)]
    assert all(end <= word.start < word.end for end, word in zip(ends, heard.words, strict=False))


@pytest.mark.parametrize("size", [160, 3333, 12800, 10**6])
def test_any_split_gives_the_same_segments(recognizer, speak, size):
    audio, _ = speak(WORDS)
    whole = recognizer.transcribe(audio, 16000)
    listener = recognizer.listener(16000)
    segments, partials = [], []
    for piece in pieces(audio, iter(lambda: size, None)):
        segments += listener.feed(piece)
        partials.append(listener.partial)
    segments += listener.finish()
    assert [s.text for s in segments] == [s.text for s in whole.segments]
    for one, other in zip([w for s in segments for w in s.words], whole.words, strict=True):
        assert (one.start, one.end) == (other.start, other.end)
        assert one.probability == pytest.approx(other.probability, abs=1e-3)
    if size < 10**4:
        assert "c b b" in " | ".join(partials)
    assert listener.finish() == [] and listener.partial == ""
    with pytest.raises(RuntimeError, match="finished"):
        listener.feed(audio)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_and_channels_and_files(recognizer, speak, tmp_path, rate):
    audio, spoken = speak(["a", "b", 1.0, "a"], rate=rate)
    eight = np.repeat(audio[:, None], 8, axis=1)
    assert recognizer.transcribe(eight, rate).text == "a b a"
    wav.write(tmp_path / "a.flac", audio, rate)
    heard = recognizer.transcribe(tmp_path / "a.flac")
    assert heard.text == "a b a"
    assert abs(heard.words[-1].start - spoken[-1][1]) < 0.15
    with open(tmp_path / "a.flac", "rb") as stream:
        assert recognizer.transcribe(stream).text == "a b a"


@pytest.mark.parametrize("samples", [0, 1, 100, 16000, 160000])
def test_silence_says_nothing(recognizer, samples):
    assert recognizer.transcribe(np.zeros(samples, np.float32), 16000).words == ()
    assert recognizer.transcribe(np.full(samples, 1e-5, np.float32), 16000).words == ()


def test_partial_words_come_before_their_chunk_is_complete(recognizer, speak, monkeypatch):
    """Half a chunk is heard ahead: words are shown sooner, never later, and whoever asks for them changes nothing."""
    audio, block, half = speak(["a", "b", "c", "b", "a"])[0], 320, recognizer.parts.model.encoder.frames // 2 * 160

    def listened(ask):
        listener, segments, shown = recognizer.listener(16000), [], {}
        for start in range(0, len(audio), block):
            segments += listener.feed(audio[start : start + block])
            for number in range(len(listener.partial.split()) if ask else 0):
                shown.setdefault(number, start + block)
        return segments + listener.finish(), np.array([shown[number] for number in sorted(shown)])

    segments, ahead = listened(True)
    assert [segment.text for segment in segments] == ["a b c b a"] and listened(False)[0] == segments
    monkeypatch.setattr(Listener, "_ahead", lambda self: None)
    chunked = listened(True)[1]
    sooner = chunked - ahead
    assert len(sooner) == 5 and (sooner >= 0).all() and sooner.max() == pytest.approx(half, abs=block)


@pytest.mark.parametrize("before, after", [(0.3, 0.3), (0.0, 0.0)])
def test_edges_change_no_clock(recognizer, speak, before, after):
    """Near silence is heard around what is fed, and nobody sees it in the times, even where words touch the edges."""
    audio, spoken = speak(["a", 0.3, "b", 1.0, "c"], edge=0.0)
    audio = np.pad(audio[:-3200], (int(before * 16000), int(after * 16000)))
    edged = Recognizer(recognizer.parts, recognizer.manifest, replace(recognizer.decoding, edge=0.3))
    heard = edged.transcribe(audio, 16000)
    assert heard.text == "a b c" and heard.seconds == pytest.approx(len(audio) / 16000)
    for word, (_, start, end) in zip(heard.words, spoken, strict=True):
        assert abs(word.start - start - before) < 0.15 and abs(word.end - end - before) < 0.2
        assert 0 <= word.start < word.end <= heard.seconds
    listener = edged.listener(16000)
    parts = [s for piece in pieces(audio, iter(lambda: 777, None)) for s in listener.feed(piece)] + listener.finish()
    # A probability may lie at an edge of its rounding: one unit of that apart is the same.
    near = [[pytest.approx(word.probability, abs=1e-4) for word in s.words] for s in heard.segments]
    assert [[word.probability for word in s.words] for s in parts] == near
    plain = [
        [[word.to_dict() | {"probability": None} for word in s.words] for s in kept] for kept in (parts, heard.segments)
    ]
    assert plain[0] == plain[1]
    assert [(s.start, s.end, s.speaker) for s in parts] == [(s.start, s.end, s.speaker) for s in heard.segments]
    with pytest.raises(ValueError, match="edge"):
        replace(edged.decoding, edge=-0.1)


class Tap(Listener):
    """Keeps what it hears."""

    partial = ""

    def _follow(self, heard):
        self.heard = [*getattr(self, "heard", []), heard.pieces]
        return []

    def _rest(self):
        return []


@pytest.mark.parametrize("size", [1000, 10**6])
def test_chunks_with_sound_are_heard_as_a_whole(recognizer, speak, size):
    """CTC may put a word well before its sound or after it: only chunks of silence after silence are blanked."""
    tone, chunk = speak(["a"], edge=0.0)[0][:800], recognizer.parts.model.encoder.chunk
    audio = np.zeros(6 * chunk * 640, np.float32)
    audio[3 * chunk * 640 - 1600 :][:800] = tone  # near the end of the third chunk
    listener = Tap(recognizer.parts, 16000, recognizer.decoding)
    for piece in pieces(audio, iter(lambda: size, None)):
        listener.feed(piece)
    listener.finish()
    blanked = np.concatenate(listener.heard).min(1) == NEVER
    assert blanked.reshape(6, chunk).all(1).tolist() == [True, True, False, False, True, True]
    assert not blanked.reshape(6, chunk)[2:4].any()


def test_samples_that_are_no_numbers_are_refused(recognizer, speak):
    audio, _ = speak(["a"])
    audio[3000] = np.nan
    with pytest.raises(SoundError, match="NaN"):
        recognizer.transcribe(audio, 16000)
    with pytest.raises(ValueError, match="sample_rate"):
        recognizer.transcribe(audio)


def test_improbable_segments_are_noise(recognizer, speak):
    audio, _ = speak(["a", "b"])
    strict = Recognizer(recognizer.parts, recognizer.manifest, replace(recognizer.decoding, agreed=1.01))
    assert strict.transcribe(audio, 16000).words == ()


def test_talk_without_pause_is_cut_in_its_gaps(recognizer, speak):
    audio, _ = speak(["a", "b", "c"] * 12, pause=0.3)
    short = Recognizer(recognizer.parts, recognizer.manifest, replace(recognizer.decoding, longest=4.0))
    heard = short.transcribe(audio, 16000)
    assert len(heard.segments) >= 4
    assert heard.text == recognizer.transcribe(audio, 16000).text
    assert heard.text.endswith("a b c a b c a b c")


def test_memory_does_not_grow(recognizer, speak):
    def held(listener):
        return listener._log_probs.size + listener._memory.numel() + listener._audio.size

    listener = recognizer.listener(16000, speakers=True)
    audio, _ = speak(["a", "b", 1.0] * 3 + [3.0])
    sizes = []
    for _ in range(6):
        listener.feed(audio)
        sizes.append(held(listener))
    assert max(sizes[1:]) <= 1.2 * sizes[0] + 5000


def test_attention_weighs_readings_as_it_scores_them(recognizer, speak):
    """The share of attention changes the choice exactly as the sum of the scores does."""
    audio, _ = speak(["a", "b"])
    listener = BeamListener(recognizer.parts, 16000, Decoding(attention=0.9, pause=9.0))
    listener.feed(audio)
    readings = listener.search.readings(listener._hypotheses)
    memory = listener._memory[:, : listener._seen]
    decoder = recognizer.parts.model.decoder
    totals = []
    with torch.no_grad():
        for reading in readings[:8]:
            tokens = [token for units in reading.units for token in units]
            logits, _, _ = decoder(torch.tensor([[1, *tokens]]), decoder.window(memory))
            scores = logits[0].log_softmax(-1)
            attention = sum(scores[i, t] for i, t in enumerate(tokens)) + scores[-1, 1:6].logsumexp(0)
            totals.append(0.1 * reading.acoustic + 0.9 * float(attention) + reading.language)
        assert listener._choose(readings[:8], listener._seen) == readings[int(np.argmax(totals))]


def test_speakers_are_numbered(recognizer, speak):
    audio, _ = speak(WORDS)
    heard = recognizer.transcribe(audio, 16000, speakers=True)
    assert heard.text == "a b c b b a"
    assert heard.words[0].speaker == 0 and all(word.speaker is not None for word in heard.words)
    mute = Recognizer(recognizer.parts._replace(voices=None), recognizer.manifest)
    assert not mute.can_tell_speakers
    with pytest.raises(ValueError, match="speaker encoder"):
        mute.transcribe(audio, 16000, speakers=True)


def test_stretches_split_at_gaps():
    words = [Word("a", 0, 1, 1), Word("b", 1.1, 2, 1), Word("c", 2.5, 3, 1)]
    assert [[w.text for w in group] for group in stretches(words)] == [["a", "b"], ["c"]]


@pytest.fixture
def folder(recognizer, tmp_path):
    recognizer.save(tmp_path / "tones", "licence text", "a card")
    return tmp_path / "tones"


def test_a_folder_gives_the_recogniser_back(recognizer, speak, folder):
    again = Recognizer.load(folder)
    audio, _ = speak(WORDS)
    assert again.transcribe(audio, 16000).text == "a b c b b a"
    assert again.decoding == recognizer.decoding and again.manifest.name == "tones"
    assert again.can_tell_speakers and (folder / "card.md").read_text() == "a card"


@pytest.mark.parametrize(
    "name", ["no-such", "../tones", "a\0b", "./missing", "DEFAULT", "", "x" * 300, "a/" + "b" * 5000]
)
def test_other_names_are_refused(name):
    with pytest.raises(ModelError, match="model "):
        Recognizer.load(name)


def test_changed_files_are_refused_by_name(folder):
    for file in ("model.safetensors", "language.npz", "LICENSE"):
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[:-1])
        with pytest.raises(ModelError, match=f"{file}: SHA-256"):
            Recognizer.load(folder)
        (folder / file).unlink()
        with pytest.raises(ModelError, match=f"{file}: missing"):
            Recognizer.load(folder)
        (folder / file).write_bytes(data)
    Recognizer.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 9},
        {"extra": 1},
        {"name": ""},
        {"files": {"model.safetensors": "0"}},
        {"files": {"../secret": "0", "model.safetensors": "0", "LICENSE": "0"}},
        {"decoding": 3},
        {"decoding": {"speed": 1}},
    ],
)
def test_bad_manifests_are_refused(folder, change):
    path = folder / package.MANIFEST
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(ModelError):
        Recognizer.load(folder)


def test_weights_of_another_vocabulary_are_refused(recognizer, folder):
    from melstate.asr.tokens import Tokens
    from melstate.vocoders import checkpoint

    path = folder / package.MODEL
    checkpoint.save(path, recognizer.parts.model, extra={"tokens": Tokens().to_dict()})
    manifest = yaml.safe_load((folder / package.MANIFEST).read_text())
    manifest["files"][package.MODEL] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / package.MANIFEST).write_text(yaml.safe_dump(manifest))
    with pytest.raises(ModelError, match="tokens, the model was trained on"):
        Recognizer.load(folder)
