"""Copies are compared with their recordings: equal ones are perfect, worse ones are told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.recipes.data.corpus import read_ljspeech
from melstate.recipes.evaluate import recording
from melstate.recipes.evaluate_vocoders import griffin_lim, main, measure, mel_distance, table
from melstate.recipes.reader import Interval
from melstate.tts.audio import Audio
from melstate.vocoders import wav
from melstate.vocoders.checkpoint import save
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.source_filter import SourceFilter

SPEECH = Path(__file__).parents[1] / "speech"
CONFIG = MelConfig()
CLIPS = read_ljspeech(SPEECH).utterances[:2]


def noisy(level):
    def speak(utterance):
        audio, rate = wav.read(utterance.audio)
        yield Audio(audio + level * np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32), rate)

    return speak


def test_the_recording_itself_is_perfect_and_noise_is_worse():
    pytest.importorskip("pystoi")
    texts = {utterance.id: utterance.text for utterance in CLIPS}
    heard = iter(texts.values())
    itself = measure("itself", recording, CLIPS, CONFIG, lambda samples, rate: next(heard), None)
    assert itself.mel_l1 < 1e-6 and itself.stoi == pytest.approx(1, abs=1e-6) and itself.wer.value == 0
    worse = [measure("noisy", noisy(level), CLIPS, CONFIG, None, None) for level in (0.003, 0.03)]
    assert 0.1 < worse[0].mel_l1 < worse[1].mel_l1 and 1 > worse[0].stoi > worse[1].stoi
    assert worse[0].wer is None
    if itself.pesq is not None:
        assert itself.pesq > 4.6 > worse[0].pesq > worse[1].pesq >= 1


def test_griffin_lim_lies_on_the_recording(tmp_path):
    original = wav.read(CLIPS[0].audio, 22050)[0][8000:30000]
    wav.write(tmp_path / "part.wav", original, 22050)
    (copy,) = griffin_lim(CONFIG, 8)(replace(CLIPS[0], audio=tmp_path / "part.wav"))
    made = copy.samples
    assert copy.sample_rate == 22050 and len(made) == len(original) // 256 * 256
    aligned = mel_distance(made, original, CONFIG)
    assert aligned < 0.35
    for shift in (-256, 256):
        assert mel_distance(np.roll(made, shift), original, CONFIG) > aligned + 0.03


def test_the_command(tmp_path, capsys):
    torch.manual_seed(0)
    save(tmp_path / "v.safetensors", SourceFilter(dim=16, layers=1, pitch_dim=16, pitch_layers=1, lookahead=2))
    vocoder = f"untrained={tmp_path / 'v.safetensors'}"
    options = ["--dev-prompts", "2", "--limit", "1", "--no-read", "--json", str(tmp_path / "out" / "figures.json")]
    assert main([str(SPEECH), "--vocoder", vocoder, "--keep", str(tmp_path), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["copy synthesis", "---", "recordings", "untrained"]
    assert (tmp_path / "out" / "figures.json").is_file() and len(list((tmp_path / "untrained").iterdir())) == 1
    for wrong in (["--vocoder", "x"], ["--vocoder", "x=none"], ["--nisqa", str(tmp_path)]):
        with pytest.raises(SystemExit):
            main([str(SPEECH), *wrong, *options])


def test_what_was_not_measured_is_a_dash():
    copy = measure("itself", recording, CLIPS[:1], CONFIG, None, None)
    assert table([copy])[2].endswith("| – | – |")
    judged = replace(copy, naturalness=Interval(3.0, 2.5, 3.25))
    assert table([judged])[2].endswith("| – | 3.00 [2.50, 3.25] |")
