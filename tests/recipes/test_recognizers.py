"""Recognisers are found wherever they are: a file, a run's folder, a packaged folder, never a guess."""

import shutil

import numpy as np
import pytest
import torch

from melstate.asr.model import SpeechModel
from melstate.asr.package import ModelError
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.tokens import Tokens
from melstate.recipes.recognizers import read_mean_recognizer, read_model, read_recognizer
from melstate.vocoders import checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with a tiny model, and a speaker encoder beside it."""
    torch.manual_seed(0)
    folder, tokens = tmp_path_factory.mktemp("run"), Tokens()
    model = SpeechModel(len(tokens), encoder={"dim": 16, "layers": 1, "channels": 4, "mixer": "gru", "conv": 0})
    checkpoint.save(folder / "model.safetensors", model, extra={"tokens": tokens.to_dict()})
    voices = SpeakerEncoder(dim=8, width=8, joined=8, dilations=(1,))
    checkpoint.save(folder / "speaker.safetensors", voices)
    return folder


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_file_a_run_and_a_package_hold_one_model(run, tmp_path):
    model, tokens = read_model(run / "model.safetensors")
    assert same(model, read_model(run)[0]) and len(tokens) == model.config["tokens"] and not model.training
    recogniser = read_recognizer(str(run), run / "speaker.safetensors")
    assert recogniser.can_tell_speakers and same(recogniser.parts.model, model)
    assert not read_recognizer(run).can_tell_speakers
    recogniser.save(tmp_path / "package", "CC0 1.0", half=False)
    packaged = read_recognizer(tmp_path / "package")
    assert same(packaged.parts.model, model) and packaged.can_tell_speakers
    assert same(read_model(tmp_path / "package")[0], model)


def test_a_mean_is_heard_plainly_or_as_another_recogniser_hears(run, tmp_path):
    model, tokens = read_model(run)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    checkpoint.save(tmp_path / "other.safetensors", model, extra={"tokens": tokens.to_dict()})
    models = [run, tmp_path / "other.safetensors"]
    like = read_recognizer(run, run / "speaker.safetensors")
    for mean in (read_mean_recognizer(models), read_mean_recognizer(models, like)):
        for name, parameter in mean.parts.model.named_parameters():
            assert torch.allclose(parameter, like.parts.model.get_parameter(name) + 0.5, atol=1e-6)
    assert mean.can_tell_speakers and mean.decoding == like.decoding
    checkpoint.save(tmp_path / "strange.safetensors", model, extra={"tokens": read_model("default")[1].to_dict()})
    with pytest.raises(ValueError, match="pieces"):
        read_mean_recognizer([tmp_path / "strange.safetensors"], like)


def test_it_transcribes_silence_as_nothing(run):
    assert read_recognizer(run).transcribe(np.zeros(16000, np.float32), 16000).text == ""


def test_what_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(ModelError, match="unknown"):
        read_recognizer("nobody")
    with pytest.raises(FileNotFoundError):
        read_recognizer(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="speaker_encoder"):
        read_recognizer(run / "speaker.safetensors")
    shutil.copy(run / "model.safetensors", tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        read_recognizer(tmp_path / "cut.safetensors")
