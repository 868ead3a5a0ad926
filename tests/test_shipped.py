"""Every folder of weights in the package is whole and does its work: a list of hashes that misses a file fails here."""

from pathlib import Path

import numpy as np
import pytest

from melstate.asr import Recognizer, package
from melstate.asr.scoring import WordErrors, word_errors
from melstate.asr.tokens import normalize_transcript
from melstate.recipes.vocode import main as vocode
from melstate.tts import Voice, manifest
from melstate.vocoders import shipped, wav

SPEECH = Path(__file__).parent / "speech"
ROWS = [row.split("|")[:2] for row in (SPEECH / "metadata.csv").read_text(encoding="utf-8").splitlines()]


def clip(name):
    return SPEECH / "wavs" / f"{name}.flac"


@pytest.fixture(scope="module", params=package.names())
def recognizer(request):
    return Recognizer.load(request.param)


def test_recognizers_hear_prompts(recognizer):
    errors = WordErrors()
    for name, text in ROWS:
        errors += word_errors(normalize_transcript(text), recognizer.transcribe(clip(name)).text)
    assert errors.rate < 0.5


MODELS = [(about.name, model) for about in manifest.shipped() for model in about.models]


@pytest.mark.parametrize("name, model", MODELS)
def test_voices_are_understood(name, model):
    speech = Voice.load(name, model=model).synthesize("one, two, three, four, five, six.")
    heard = Recognizer.load("default").transcribe(speech.samples, speech.sample_rate).text
    assert word_errors("one two three four five six", heard).rate < 0.5


@pytest.mark.parametrize("vocoder", shipped.names())
def test_vocoders_copy_speech(vocoder, tmp_path):
    source, copy = clip(ROWS[0][0]), tmp_path / "copy.wav"
    assert vocode([str(source), "-o", str(copy), "--vocoder", vocoder]) == 0
    (one, rate), (other, copied) = wav.read(source), wav.read(copy)
    assert copied == rate and abs(len(one) - len(other)) < rate / 20
    assert np.sqrt(np.mean(other**2)) == pytest.approx(np.sqrt(np.mean(one**2)), rel=0.25)
