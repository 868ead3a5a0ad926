"""A voice folder loads as it was saved, or is refused with the reason; names never lead out of the voices folder."""

import builtins
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_voice
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from melstate.tts import manifest
from melstate.tts.manifest import Defaults, VoiceError
from melstate.tts.voice import Voice
from melstate.tts.voice_folder import add_model
from melstate.vocoders import checkpoint
from melstate.vocoders.mel import MelConfig


def load(folder):
    return Voice.load(folder, front_end=tiny_voice.TinyFrontEnd())


def edit(folder, change):
    """Change voice.yaml; `change` gets its values."""
    path = folder / "voice.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def edit_tensors(folder, part, change, head=None):
    """Change a model's tensors or header and write the new hash, so that only the fault itself is left to find."""
    path = folder / f"{part}.safetensors"
    tensors = load_file(path)
    change(tensors)
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["melstate"])
    save_file(tensors, path, metadata={"melstate": json.dumps(header | (head or {}))})
    rehash(folder, part)


def rehash(folder, part):
    digest = manifest.sha256(folder / f"{part}.safetensors")
    edit(folder, lambda values: (values if part == "vocoder" else values["models"])[part].update(sha256=digest))


def tiny_model(values):
    return values["models"]["tiny_acoustic"]


def test_round_trip(tiny, tiny_folder):
    assert sorted(entry.name for entry in tiny_folder.iterdir()) == [
        "LICENSE",
        "card.md",
        "tiny_acoustic.safetensors",
        "vocoder.safetensors",
        "voice.yaml",
    ]
    voice = load(tiny_folder)
    for name in ("name", "language", "licence", "description", "licence_text", "card", "defaults"):
        assert getattr(voice, name) == getattr(tiny, name), name
    exact = tiny_folder.with_name("exact")
    tiny.save(exact, half=False)
    assert np.array_equal(load(exact).synthesize("Hello.").samples, tiny.synthesize("Hello.").samples)
    assert np.abs(voice.synthesize("Hello.").samples - tiny.synthesize("Hello.").samples).max() < 0.05
    load(str(exact))  # a str with a separator is a path
    load(exact)


def test_saving_twice_is_stable(tiny_folder):
    first = {entry.name: entry.read_bytes() for entry in tiny_folder.iterdir()}
    load(tiny_folder).save(tiny_folder)
    assert {entry.name: entry.read_bytes() for entry in tiny_folder.iterdir()} == first


def test_defaults_travel(tiny_kinds, tmp_path):
    defaults = Defaults(speed=0.9, gain=6.5, sentence_pause=0.1, f0="estimated")
    tiny_voice.tiny_voice(defaults=defaults).save(tmp_path / "v")
    assert load(tmp_path / "v").defaults == defaults


def test_a_relative_folder_works(tiny_folder, monkeypatch):
    monkeypatch.chdir(tiny_folder.parent)
    assert load("./tiny").name == "tiny"
    assert load("tiny/").name == "tiny"
    with pytest.raises(VoiceError, match="unknown; shipped voices: .*"):
        load("tiny")  # a bare word is a name, never a folder that happens to be here


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(colour="red"), "unknown key 'colour'; known: base, defaults"),
        (lambda v: tiny_model(v).update(size=3), "unknown key 'models.tiny_acoustic.size'"),
        (lambda v: v.update(defaults={"loudness": 1}), "unknown key 'defaults.loudness'"),
        (lambda v: v.pop("licence"), "'licence' is missing; a voice needs its licence"),
        (lambda v: v.update(licence=""), "'licence' is missing"),
        (lambda v: v.update(licence="  "), "licence is '  ', expected text"),
        (lambda v: v.update(licence=None), "'licence' is missing"),
        (lambda v: v["vocoder"].pop("sha256"), "'vocoder.sha256' is missing"),
        (lambda v: v["vocoder"].update(sha256="abc"), "vocoder.sha256 'abc' is not a SHA-256"),
        (lambda v: v["vocoder"].update(sha256="0" * 64), r"has SHA-256 [0-9a-f]{64}, voice.yaml says 0000"),
        (lambda v: v["vocoder"].update(sha256=123), "vocoder.sha256 is 123, expected text"),
        (lambda v: tiny_model(v).update(file="../acoustic.safetensors"), "not a plain .safetensors name"),
        (lambda v: tiny_model(v).update(file="/etc/passwd"), "not a plain .safetensors name"),
        (lambda v: tiny_model(v).update(file="a\0.safetensors"), "not a plain .safetensors name"),
        (lambda v: tiny_model(v).update(file="none.safetensors"), "none.safetensors is missing"),
        (
            lambda v: tiny_model(v).update(kind="tiny_vocoder"),
            "'tiny_acoustic', voice.yaml says 'tiny_vocoder'",
        ),
        (lambda v: v.update(models="x"), "models is 'x', expected acoustic models by name"),
        (lambda v: v.update(models={}), "models is {}, expected acoustic models by name"),
        (lambda v: v["models"].update(more="x"), "models.more is 'x', expected keys"),
        (lambda v: v["models"].update({"../x": tiny_model(v)}), "models: '../x' is no name for a model"),
        (lambda v: v["models"].update({7: tiny_model(v)}), "models: 7 is no name for a model"),
        (lambda v: v["models"].update(vocoder=tiny_model(v)), "models: 'vocoder' is no name for a model"),
        (lambda v: v.update(format=1), "voice format 1, this version reads 2"),
        (lambda v: v.pop("format"), "voice format None"),
        (lambda v: v.update(name="../x"), "name '../x' may hold only"),
        (lambda v: v.update(name=7), "name is 7, expected text"),
        (lambda v: v.update(defaults={"speed": "fast"}), "defaults.speed must be a number, got 'fast'"),
        (lambda v: v.update(defaults={"gain": float("nan")}), "defaults.gain must be a number"),
        (lambda v: v.update(defaults={"gain": 90.0}), "defaults.gain must be in -40..40, got 90"),
        (lambda v: v.update(defaults={"pause": -1}), "defaults.pause must be in 0..10"),
        (lambda v: v.update(defaults={"f0": "none"}), "defaults.f0 must be 'predicted' or 'estimated'"),
    ],
)
def test_bad_manifests_are_refused(tiny_folder, change, message):
    edit(tiny_folder, change)
    with pytest.raises(VoiceError, match=message) as caught:
        load(tiny_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"- a list", b"{unclosed", b"\xff\xfe\x00", b"a: !!python/object/apply:os.getcwd []", b"x: 1\n" * 20_000],
)
def test_files_that_are_no_manifest(tiny_folder, data):
    (tiny_folder / "voice.yaml").write_bytes(data)
    with pytest.raises(VoiceError, match="voice.yaml") as caught:
        load(tiny_folder)
    assert "\n" not in str(caught.value)


def test_a_voice_without_licence_text_is_refused(tiny_folder):
    (tiny_folder / "LICENSE").unlink()
    with pytest.raises(VoiceError, match="has no LICENSE file; add the text of CC0-1.0"):
        load(tiny_folder)
    with pytest.raises(VoiceError, match="needs a licence"):
        tiny_voice.tiny_voice(licence_text=" ").save(tiny_folder)


@pytest.mark.parametrize("part", ["tiny_acoustic", "vocoder"])
@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "nan", "inf"])
def test_bad_tensors_are_refused_by_name(tiny_folder, part, fault):
    name = {"tiny_acoustic": "embedding.weight", "vocoder": "head.weight"}[part]

    def change(tensors):
        if fault == "missing":
            del tensors[name]
        elif fault == "unknown":
            tensors["extra.bias"] = torch.zeros(1)
        elif fault == "shape":
            tensors[name] = tensors[name][:-1].contiguous()
        else:
            tensors[name].view(-1)[-1] = float(fault)

    edit_tensors(tiny_folder, part, change)
    with pytest.raises(VoiceError, match=f"voice 'tiny': .*{part}.safetensors: tensor ") as caught:
        load(tiny_folder)
    assert f"'{name if fault != 'unknown' else 'extra.bias'}'" in str(caught.value)


def test_truncated_models_are_refused(tiny_folder):
    path = tiny_folder / "vocoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VoiceError, match="vocoder.safetensors has SHA-256"):
        load(tiny_folder)
    rehash(tiny_folder, "vocoder")
    with pytest.raises(VoiceError, match="vocoder.safetensors: truncated or not a safetensors file"):
        load(tiny_folder)


def test_models_that_do_not_fit_each_other_are_refused(tiny, tiny_folder):
    vocoder = tiny_voice.TinyVocoder(mel=MelConfig(hop=300).to_dict())
    checkpoint.save(tiny_folder / "vocoder.safetensors", vocoder)
    rehash(tiny_folder, "vocoder")
    with pytest.raises(VoiceError, match="acoustic mel and vocoder mel differ: hop 256 != 300; retrain one or"):
        load(tiny_folder)


def test_another_symbol_table_is_refused(tiny_folder):
    edit_tensors(tiny_folder, "tiny_acoustic", lambda tensors: None, head={"extra": {"symbols": 99}})
    with pytest.raises(VoiceError, match="trained on symbols version 99, the front end has 1"):
        load(tiny_folder)
    edit_tensors(tiny_folder, "tiny_acoustic", lambda tensors: None, head={"extra": {}})
    with pytest.raises(VoiceError, match="trained on symbols version None"):
        load(tiny_folder)


@pytest.fixture
def two_models(tiny_folder):
    """The tiny voice with a second model, called "other", that speaks otherwise."""
    other = tiny_voice.TinyAcoustic()
    torch.nn.init.constant_(other.embedding.weight, -5.0)
    assert add_model(tiny_folder, other, "other") == "other"
    return tiny_folder


def load_model(folder, model):
    return Voice.load(folder, model=model, front_end=tiny_voice.TinyFrontEnd())


def test_a_voice_speaks_with_the_model_that_is_asked_for(two_models):
    about = manifest.read(two_models)
    assert list(about.models) == ["tiny_acoustic", "other"] and about.models["other"].file == "other.safetensors"
    default, named, other = (load_model(two_models, name) for name in (None, "tiny_acoustic", "other"))
    assert (default.model, named.model, other.model) == ("tiny_acoustic", "tiny_acoustic", "other")
    spoken = [voice.synthesize("Hello.", variation=0.0).samples for voice in (default, named, other)]
    assert np.array_equal(spoken[0], spoken[1]) and np.abs(spoken[0] - spoken[2]).max() > 1e-3
    assert float(other.acoustic.embedding.weight.detach().std()) == 0


def test_only_the_model_that_speaks_is_read(two_models):
    (two_models / "other.safetensors").write_bytes(b"damaged")
    assert load_model(two_models, None).model == "tiny_acoustic"
    with pytest.raises(VoiceError, match="other.safetensors has SHA-256"):
        load_model(two_models, "other")


@pytest.mark.parametrize("model", ["lina", "", "../other", "other.safetensors", "vocoder", "x" * 500])
def test_unknown_models_are_refused_with_those_there_are(two_models, model):
    with pytest.raises(VoiceError, match="its models: tiny_acoustic \\(default\\), other$") as caught:
        load_model(two_models, model)
    assert "voice 'tiny': has no model" in str(caught.value) and len(str(caught.value)) < 250


def test_a_model_takes_its_namesakes_place(two_models):
    again = tiny_voice.TinyAcoustic()
    torch.nn.init.constant_(again.embedding.weight, 3.0)
    add_model(two_models, again, "other")
    assert list(manifest.read(two_models).models) == ["tiny_acoustic", "other"]
    assert float(load_model(two_models, "other").acoustic.embedding.weight.detach().mean()) == 3.0
    default = tiny_voice.TinyAcoustic()
    add_model(two_models, default)
    assert list(manifest.read(two_models).models) == ["tiny_acoustic", "other"]


def test_saving_over_a_voice_leaves_no_models_of_its_own(two_models):
    load_model(two_models, "other").save(two_models)
    assert sorted(entry.name for entry in two_models.glob("*.safetensors")) == [
        "other.safetensors",
        "vocoder.safetensors",
    ]
    assert list(manifest.read(two_models).models) == ["other"]


def test_models_that_cannot_be_added_change_nothing(tiny_folder):
    before = {entry.name: entry.read_bytes() for entry in tiny_folder.iterdir()}
    acoustic = tiny_voice.TinyAcoustic()
    for name in ("vocoder", "../x", "Other", ""):
        with pytest.raises(VoiceError, match="a name may hold only a-z"):
            add_model(tiny_folder, acoustic, name)
    with pytest.raises(VoiceError, match="mels of model 'wide' and of its vocoder differ: hop 300 != 256"):
        add_model(tiny_folder, tiny_voice.TinyAcoustic(mel=MelConfig(hop=300).to_dict()), "wide")
    torch.nn.init.constant_(acoustic.embedding.weight, float("nan"))
    with pytest.raises(ValueError, match="embedding.weight' holds NaN"):
        add_model(tiny_folder, acoustic, "other")
    with pytest.raises(VoiceError, match="cannot be read"):
        add_model(tiny_folder.parent, tiny_voice.TinyAcoustic(), "other")
    edit(tiny_folder, lambda v: v.update(models={"first": tiny_model(v)}))
    with pytest.raises(VoiceError, match="tiny_acoustic.safetensors holds its model 'first'; choose another name"):
        add_model(tiny_folder, tiny_voice.TinyAcoustic())
    edit(tiny_folder, lambda v: v.update(models={"tiny_acoustic": v["models"]["first"]}))
    after = {entry.name: entry.read_bytes() for entry in tiny_folder.iterdir()}
    assert {k: v for k, v in after.items() if k != "voice.yaml"} == {
        k: v for k, v in before.items() if k != "voice.yaml"
    }


def test_links_out_of_the_folder_are_refused(tiny_folder):
    outside = tiny_folder.parent / "outside.safetensors"
    (tiny_folder / "vocoder.safetensors").rename(outside)
    (tiny_folder / "vocoder.safetensors").symlink_to(outside)
    with pytest.raises(VoiceError, match="is a link out of the voice's folder"):
        load(tiny_folder)


def test_unusable_devices_are_named(tiny_folder):
    for device in ("cuda:99", "banana"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used") as caught:
            Voice.load(tiny_folder, device=device)
        assert not isinstance(caught.value, VoiceError) and "\n" not in str(caught.value)


HOSTILE = [
    "",
    ".",
    "..",
    "../tiny",
    "%2e%2e%2ftiny",
    "%2e",
    "tiny\0",
    "tiny\n",
    "\\\\server\\tiny",
    "C:tiny",
    "~root",
    "$HOME",
    "Tiny",
    "ｔｉｎｙ",
    "tiny" * 100,
    "linked",
    "\ud800",
]


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """A voices folder with one voice, "tiny", and a link to a voice outside."""
    root = tmp_path_factory.mktemp("root")
    outside = root / "tiny"
    tiny_voice.tiny_voice().save(outside)
    tiny_voice.tiny_voice().save(root / "voices" / "tiny")
    (root / "voices" / "linked").symlink_to(outside)
    return root / "voices"


@pytest.fixture
def shipped(voices, tiny_kinds, monkeypatch):
    monkeypatch.setattr(manifest, "SHIPPED", voices)
    return voices


def test_shipped_voices_by_name(shipped):
    assert load("tiny").name == "tiny"
    assert [voice.name for voice in manifest.shipped()] == ["tiny"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_without_opening_anything(shipped, name, monkeypatch):
    _no_opening(monkeypatch)
    with pytest.raises(VoiceError, match="shipped voices: tiny") as caught:
        Voice.load(name)
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(name=st.text(alphabet=st.sampled_from("tinylked./\\%2e\0~-_ \n"), max_size=12))
@example(name="%2e%2e")
def test_fuzzed_names_never_lead_out(voices, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "SHIPPED", voices)
        patch.chdir(voices.parent / "tiny")  # even from inside a folder of voices
        if "/" in name:
            return  # a path the user wrote out
        try:
            found = manifest.find(name)
        except VoiceError:
            return
        assert found == voices / "tiny" and name == "tiny"


@pytest.mark.parametrize("path", ["./none", "/", "/etc/passwd", "a/\0", "x/" + "y" * 5000, Path("none"), Path(".")])
def test_paths_without_a_voice_are_refused(shipped, path):
    with pytest.raises(VoiceError, match="no folder with a voice.yaml there; shipped voices: tiny"):
        Voice.load(path)


def test_unknown_voice_lists_those_available_and_is_no_default(shipped):
    with pytest.raises(VoiceError, match="voice 'amy': unknown; shipped voices: tiny$"):
        Voice.load("amy")


def _no_opening(patch):
    """Whatever opens a file from here on fails the test."""

    def refuse(path, *args, **kwargs):
        raise AssertionError(f"opened {path!r}")

    patch.setattr(builtins, "open", refuse)
    patch.setattr(io, "open", refuse)
    patch.setattr(os, "open", refuse)
