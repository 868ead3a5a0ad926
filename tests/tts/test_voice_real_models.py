"""The models and the front end that ship make a voice: small and untrained here, joined as they are when trained."""

import warnings

import numpy as np
import pytest
import torch

from melstate.tts import lina_decoding
from melstate.tts.acoustic import SpeechWarning
from melstate.tts.fastspeech import FastSpeech
from melstate.tts.lina import Lina
from melstate.tts.text import FrontEnd
from melstate.tts.voice import Voice
from melstate.vocoders.source_filter import SourceFilter

TEXT = "Hello there, world. It will be two o'clock before she comes, or so they say."


@pytest.fixture(scope="module")
def voice():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        acoustic = FastSpeech(dim=32, hidden=64, encoder_blocks=1, local_blocks=1, decoder_blocks=1)
        vocoder = SourceFilter(dim=32, layers=2, pitch_dim=16, pitch_layers=1)
    about = {"language": "en-US", "licence": "CC0-1.0", "description": "untrained", "licence_text": "CC0"}
    return Voice("small", acoustic, vocoder, front_end=FrontEnd(), **about)


@pytest.fixture(scope="module")
def speech(voice):
    return voice.synthesize(TEXT)


@pytest.mark.parametrize("chunk", [1, 17, 64, 100, 10_000])
def test_any_chunk_gives_the_same_audio(voice, speech, chunk):
    other = voice.synthesize(TEXT, chunk=chunk)
    assert other.samples.shape == speech.samples.shape
    assert np.abs(other.samples - speech.samples).max() <= 1e-4
    assert (other.words, other.phones) == (speech.words, speech.phones)


def test_a_saved_voice_is_found_by_its_kinds(voice, speech, tmp_path):
    voice.save(tmp_path / "small", half=False)
    again = Voice.load(tmp_path / "small", front_end=voice.front_end)
    assert np.array_equal(again.synthesize(TEXT).samples, speech.samples)


def test_every_word_is_timed(voice, speech):
    said = [word for sentence in voice.front_end.sentences(TEXT) for word in sentence.words]
    assert [word.text for word in speech.words] == said
    assert all(word.end > word.start for word in speech.words)


def test_extreme_controls_are_finite(voice):
    for controls in (
        {"speed": 4.0, "pitch": 12.0, "energy": 20.0, "pause": 0.0, "variation": 3.0},
        {"speed": 0.25, "pitch": -12.0, "energy": -20.0, "pause": 10.0, "variation": 0.0},
    ):
        audio = voice.synthesize("Hi.", **controls)
        assert np.isfinite(audio.samples).all() and np.abs(audio.samples).max() <= 1.0


def test_a_slow_model_lets_the_first_sound_out_before_a_tile_is_full(voice, monkeypatch):
    """A tile of Lina's frames would take several passages; one is enough to begin, and a longer one may follow."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"text_dim": 16, "text_hidden": 16, "text_blocks": 1, "dim": 16, "hidden": 16, "blocks": 1}
        small |= {"key_dim": 8, "place_dim": 16, "path_dim": 16, "embedding": 12, "prenet": 12, "retries": 0}
        lina = Lina(**small, options={"heads": 2}).eval()
    for about, most in ((lina, lina_decoding.PASSAGE * lina.group), (voice.acoustic, voice.vocoder.tile * 2)):
        sizes = []

        def heard(mel, *args, given=voice.vocoder.stream, sizes=sizes, **options):
            sizes.append(mel.shape[2])
            return given(mel, *args, **options)

        monkeypatch.setattr(voice.vocoder, "stream", heard)
        monkeypatch.setattr(voice, "acoustic", about)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SpeechWarning)  # an untrained model babbles
            next(piece for piece in voice.stream(TEXT) if len(piece.samples))
        monkeypatch.undo()
        assert sizes[0] == sum(sizes) <= most
        assert (sizes[0] < voice.vocoder.tile) == (about is lina)
