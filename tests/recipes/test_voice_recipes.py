"""Trained models become a voice; a voice is evaluated and timed; `melstate` finds each of them."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_voice
import torch

from melstate.recipes import cli, evaluate, export, models
from melstate.recipes.bench import synthesis
from melstate.tts.audio import Coverage
from melstate.tts.voice import Voice
from melstate.tts.voice_folder import add_model
from melstate.vocoders import checkpoint
from melstate.vocoders.mel import MelConfig

SPEECH = Path(__file__).parent.parent / "speech"


@pytest.fixture
def runs(tmp_path, tiny, tiny_kinds, monkeypatch):
    """Folders as training leaves them: one exported, one with only its last.ckpt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("melstate.tts.text.FrontEnd", lambda lexicon=None: tiny_voice.TinyFrontEnd())
    for name in ("acoustic", "vocoder"):
        (tmp_path / name).mkdir()
    checkpoint.save(tmp_path / "acoustic" / "model.safetensors", tiny.acoustic, extra={"steps": 3, "symbols": 1})
    state = {f"model.{name}": tensor for name, tensor in tiny.vocoder.state_dict().items()}
    torch.save({"state_dict": state | {"discriminators.0.bias": torch.zeros(2)}}, tmp_path / "vocoder" / "last.ckpt")
    (tmp_path / "vocoder" / "config.yaml").write_text("task: {model: {_target_: tiny_voice.TinyVocoder}}")
    (tmp_path / "LICENCE").write_text("CC0 1.0 Universal")
    return tmp_path


FLAGS = ["--licence", "CC0-1.0", "--licence-file", "LICENCE", "--description", "Untrained.", "--data", "none at all"]


def exported(*args):
    return export.main(["voice", "--acoustic", "acoustic", "--vocoder", "vocoder", *FLAGS, *args])


def test_export_writes_a_voice_that_speaks(runs, tiny, capsys):
    figures = {
        "about": {"corpus": "c", "recogniser": "r", "threads": 1},
        "prompts": 2,
        "conditions": {
            "recordings": {"wer": {"value": 0.25, "low": 0.2, "high": 0.3}},
            "voice": {
                "wer": {"value": 0.3, "low": 0.2, "high": 0.4},
                "ratio": {"value": 1.2, "low": 0.9, "high": 1.5},
                "real_time_factor": 0.01,
                "first_sound_ms": 31.4,
                "coverage": Coverage(2, 2, 30, 30, 1).to_dict(),
            },
        },
    }
    (runs / "f.json").write_text(json.dumps(figures))
    (runs / "commands").write_text("melstate train x\n")
    args = ["--gain", "6", "--sentence-pause", "0.1", "--figures", "f.json", "--commands", "commands", "--full"]
    assert exported(*args) == 0
    assert "voice: voice 'voice' (CC0-1.0), 0.3 MB, loads and speaks" in capsys.readouterr().out
    voice = Voice.load(runs / "voice")
    assert (voice.defaults.gain, voice.defaults.sentence_pause, voice.defaults.f0) == (6.0, 0.1, "predicted")
    assert "| voice | 0.300 [0.200, 0.400] | 1.20 [0.90, 1.50] | 0.010 | 31 | 100 % |" in voice.card
    assert "    melstate train x" in voice.card and "none at all" in voice.card
    assert torch.equal(voice.vocoder.head.weight, tiny.vocoder.head.weight)


def test_export_refuses_what_would_not_load(runs, capsys):
    def refused(*args, message):
        assert exported(*args) == 1
        err = capsys.readouterr().err
        assert err.startswith("export: ") and message in err and err.count("\n") == 1, err

    refused("--acoustic", "none", message="none: no such checkpoint")
    refused("--acoustic", "vocoder", message="holds a 'tiny_vocoder', expected one of")
    refused("--vocoder", "acoustic", message="unknown kind 'tiny_acoustic'")
    refused("--name", "Über", message="may hold only a-z")
    refused("--licence", " ", message="needs a licence")
    refused("--gain", "99", message="gain must be in -40..40")
    refused("--speed", "9", message="speed must be in 0.25..4")
    checkpoint.save(runs / "wide.safetensors", tiny_voice.TinyVocoder(mel=MelConfig(hop=300).to_dict()))
    refused("--vocoder", "wide.safetensors", message="hop 256 != 300")
    checkpoint.save(runs / "old.safetensors", tiny_voice.TinyAcoustic(), extra={"symbols": 0})
    refused("--acoustic", "old.safetensors", message="trained on symbols version 0, the front end has 1")
    state = torch.load(runs / "vocoder" / "last.ckpt", weights_only=True)
    state["state_dict"]["model.head.bias"][0] = float("nan")
    torch.save(state, runs / "vocoder" / "last.ckpt")
    refused(message="tensor 'head.bias' holds NaN")
    (runs / "vocoder" / "last.ckpt").write_bytes(b"no pickle")
    refused(message="last.ckpt: not a readable checkpoint")
    (runs / "vocoder" / "config.yaml").unlink()
    refused(message="config.yaml: missing")


def test_export_adds_a_model_to_a_voice(runs, capsys):
    assert exported("--gain", "6") == 0
    other = tiny_voice.TinyAcoustic()
    torch.nn.init.constant_(other.embedding.weight, -4.0)
    checkpoint.save(runs / "other.safetensors", other, extra={"symbols": 1})
    (runs / "commands").write_text("python -m melstate.recipes.train experiment=other\n")
    before = (runs / "voice" / "card.md").read_text()
    add = ["voice", "--add", "--acoustic", "other.safetensors", "--model", "other", "--commands", "commands"]
    for _ in range(2):  # the second time it takes its own place
        assert export.main(add) == 0
    assert "voice 'voice' (CC0-1.0), models tiny_acoustic, other, " in capsys.readouterr().out
    default, added = Voice.load(runs / "voice"), Voice.load(runs / "voice", model="other")
    assert default.model == "tiny_acoustic" and added.defaults.gain == 6.0 and added.licence == "CC0-1.0"
    assert added.card.startswith(before) and added.card.count("## Model other\n") == 1
    assert "speaks with `--model other`" in added.card and "    python -m melstate.recipes.train" in added.card

    def refused(*args, message):
        assert export.main([*args]) == 1
        assert message in capsys.readouterr().err

    refused("none", "--add", "--acoustic", "other.safetensors", message="no folder with a voice.yaml there")
    refused("voice", "--add", "--acoustic", "vocoder", message="expected one of")
    refused("voice", "--add", "--acoustic", "other.safetensors", "--model", "vocoder", message="not be 'vocoder'")
    for args, message in (
        (["--add", "--licence", "CC0-1.0"], "--add keeps the voice as it is; leave out --licence"),
        (["--licence", "CC0-1.0"], "a new voice needs --vocoder, --licence-file, --description; --add extends"),
    ):
        with pytest.raises(SystemExit):
            export.main(["voice", "--acoustic", "other.safetensors", *args])
        assert message in capsys.readouterr().err


def test_export_replaces_the_vocoder_of_a_voice(runs, capsys):
    assert exported() == 0
    before = Voice.load(runs / "voice")
    other = tiny_voice.TinyVocoder()
    torch.nn.init.constant_(other.head.bias, 0.01)
    checkpoint.save(runs / "other.safetensors", other)
    assert export.main(["voice", "--add", "--vocoder", "other.safetensors"]) == 0
    after = Voice.load(runs / "voice")
    assert after.vocoder.head.bias[0].item() == pytest.approx(0.01, abs=1e-4) and after.card == before.card
    assert torch.equal(after.acoustic.embedding.weight, before.acoustic.embedding.weight)
    checkpoint.save(runs / "wide.safetensors", tiny_voice.TinyVocoder(mel=MelConfig(hop=300).to_dict()))
    assert export.main(["voice", "--add", "--vocoder", "wide.safetensors"]) == 1
    assert "mels of model 'tiny_acoustic' and of the vocoder differ: hop 256 != 300" in capsys.readouterr().err
    assert Voice.load(runs / "voice").vocoder.mel.hop == 256
    with pytest.raises(SystemExit):
        export.main(["voice", "--add"])


def test_silent_models_are_not_exported(runs, capsys):
    vocoder = tiny_voice.TinyVocoder()
    torch.nn.init.zeros_(vocoder.head.weight)
    torch.nn.init.zeros_(vocoder.head.bias)
    checkpoint.save(runs / "silent.safetensors", vocoder)
    assert exported("--vocoder", "silent.safetensors") == 1
    assert "the exported voice is silent" in capsys.readouterr().err


def test_run_folders_prefer_the_exported_model(runs, tiny):
    assert torch.equal(models.read_vocoder("vocoder").head.bias, tiny.vocoder.head.bias)
    other = tiny_voice.TinyVocoder()
    checkpoint.save(runs / "vocoder" / "model.safetensors", other)
    assert torch.equal(models.read_vocoder("vocoder").head.bias, other.head.bias)


def test_prompts_are_chosen_once_each(tmp_path):
    every = evaluate.choose(SPEECH, 5, 0)
    assert len(every) == len({u.text for u in every}) == 5
    assert evaluate.choose(SPEECH, 5, 0, limit=2) == every[:2]
    (tmp_path / "ids").write_text(f"{every[1].id}\n{every[0].id}\n")
    assert evaluate.choose(SPEECH, 0, 0, ids=tmp_path / "ids") == every[:2]
    (tmp_path / "ids").write_text("nobody")
    with pytest.raises(ValueError, match="1 ids are not in .*, the first 'nobody'"):
        evaluate.choose(SPEECH, 0, 0, ids=tmp_path / "ids")


class Parrot:
    """A recogniser that knows the recordings' lengths, and leaves out a word of anything else."""

    heard: dict = {}

    def __init__(self, cache):
        pass

    def read(self, samples, rate):
        return self.heard.get(len(samples), "completely wrong")


def test_evaluate_reports_every_condition(runs, tiny, monkeypatch, capsys):
    tiny.save(runs / "tiny")
    chosen = evaluate.choose(SPEECH, 3, 1)
    monkeypatch.setattr(Parrot, "heard", {len(next(evaluate.recording(u)).samples): u.text for u in chosen})
    monkeypatch.setattr(evaluate.reader, "Reader", Parrot)
    monkeypatch.setattr(evaluate.torch, "set_num_threads", lambda count: None)
    args = [str(SPEECH), "--voice", "./tiny", "--copy", "--dev-prompts", "3", "--json", "out/e.json", "--keep", "kept"]
    assert evaluate.main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["condition", "recordings", "voice", "copy"]
    result = json.loads((runs / "out" / "e.json").read_text())
    assert result["conditions"]["recordings"]["wer"]["value"] == 0
    spoken = result["conditions"]["voice"]
    assert spoken["wer"]["value"] >= 0.9 and spoken["first_sound_ms"] > 0
    assert spoken["parameters"] == evaluate.count(tiny.acoustic, tiny.vocoder)
    assert spoken["coverage"]["complete"] and spoken["coverage"]["sentences"] >= 3
    assert "100 %" in lines[2] and "%" not in lines[1] + lines[3]
    assert result["conditions"]["copy"]["mel_l1"] > 0
    assert result["conditions"]["copy"]["audio_seconds"] == pytest.approx(
        result["conditions"]["recordings"]["audio_seconds"], abs=0.05
    )
    assert [row["id"] for row in result["each"]] == [u.id for u in chosen]
    assert len(list((runs / "kept" / "voice").iterdir())) == len(list((runs / "kept" / "copy").iterdir())) == 3


def test_evaluate_compares_models_of_a_voice(runs, tiny, monkeypatch, capsys):
    tiny.save(runs / "tiny")
    add_model(runs / "tiny", tiny_voice.TinyAcoustic(), "other")
    monkeypatch.setattr(evaluate.reader, "Reader", Parrot)
    monkeypatch.setattr(evaluate.torch, "set_num_threads", lambda count: None)
    args = [str(SPEECH), "--voice", "./tiny", "--dev-prompts", "2", "--model", "tiny_acoustic", "--model", "other"]
    assert evaluate.main(args) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["tiny_acoustic", "other"]
    with pytest.raises(SystemExit):
        evaluate.main([*args, "--model", "lina"])
    assert "has no model 'lina'; its models: tiny_acoustic (default), other" in capsys.readouterr().err


def test_coverage_is_not_rounded_up():
    assert evaluate.covered(Coverage(1, 1, 10_000, 9_999, 0).to_dict()) == "99.9 %"
    assert evaluate.covered(Coverage(2, 1, 10, 10, 1).to_dict()) == "100 % disordered"


def test_evaluate_refuses_a_missing_voice(runs, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate.main([str(SPEECH), "--voice", "amy", "--dev-prompts", "2"])
    assert caught.value.code == 2 and "voice 'amy': unknown" in capsys.readouterr().err


def test_bench_sentences_have_twenty_words():
    assert len(set(synthesis.SENTENCES)) == 20
    assert {len(sentence.split()) for sentence in synthesis.SENTENCES} == {20}


def test_bench_measures_and_writes(runs, tiny, monkeypatch, capsys):
    tiny.save(runs / "tiny")
    monkeypatch.setattr(
        synthesis, "cold_start", lambda *args: {"seconds": {"p50": 1, "p95": 2}, "mb": {"p50": 3, "p95": 4}}
    )
    monkeypatch.setattr(synthesis.torch, "set_num_threads", lambda count: None)
    assert synthesis.main(["--voice", "./tiny", "--rounds", "1", "--characters", "2000", "--json", "b.json"]) == 0
    result = json.loads((runs / "b.json").read_text())
    assert result["streamed"]["real_time_factor"]["runs"] == 20
    assert result["long_text"]["words_dropped"] == 0 and result["long_text"]["characters"] == 2000
    out = capsys.readouterr().out
    assert "real-time factor, streamed" in out and "0 words dropped" in out
    args = ["--voice", "./tiny", "--model", "tiny_acoustic", "--rounds", "1", "--minutes", "0.5", "--json", "b.json"]
    assert synthesis.main(args) == 0
    result = json.loads((runs / "b.json").read_text())
    assert result["model"] == "tiny_acoustic" and 0.45 < result["long_text"]["minutes_of_speech"] < 0.55
    assert result["long_text"]["phones_dropped"] == 0 and abs(result["long_text"]["growth"]) < 0.2


def test_umbrella_command(capsys, monkeypatch):
    assert cli.main([]) == cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in (*cli.COMMANDS, "voices", "version"))
    assert cli.main(["sing"]) == 2
    assert "unknown command 'sing'; known: " in capsys.readouterr().err
    assert cli.main(["voices", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)
    for name, (module, _) in cli.COMMANDS.items():
        assert find_spec(module) is not None, name
        if name == "train":
            continue  # Lightning takes seconds to import
        with pytest.raises(SystemExit) as caught:
            cli.main([name, "--help"])
        assert caught.value.code == 0 and callable(sys.modules[module].main)


def test_umbrella_help_imports_nothing_heavy(run_python):
    loaded = run_python("import sys\nfrom melstate.recipes import cli\ncli.main([])\nprint(*sys.modules)").split()
    assert not {"torch", "numpy", "lightning", "hydra"} & set(loaded)


def test_percentiles_are_of_the_values():
    found = synthesis.percentiles(list(np.arange(101)))
    assert found == {"p50": 50.0, "p95": 95.0, "runs": 101}
