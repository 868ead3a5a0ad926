"""The models and the front end that ship make a voice: small and untrained here, joined as they are when trained."""

import numpy as np
import pytest
import torch

from melstate.tts.fastspeech import FastSpeech
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
