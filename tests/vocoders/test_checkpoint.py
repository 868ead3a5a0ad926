"""Checkpoints come back as they were written, or are refused by name."""

import json
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from melstate.vocoders import checkpoint
from melstate.vocoders.mel import MelConfig


class Tiny(nn.Module):
    kind = "tiny"

    def __init__(self, width=4, mel=None):
        super().__init__()
        self.config = {"width": width, "mel": mel or MelConfig().to_dict()}
        self.mel = MelConfig.from_dict(self.config["mel"])
        self.a = nn.Linear(width, width)
        self.b = nn.Linear(width, width)
        self.b.weight = self.a.weight  # tied weights share storage
        self.register_buffer("steps", torch.tensor(7))


CLASSES = {"tiny": f"{__name__}:Tiny"}


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    model = Tiny()
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, model, extra={"symbols": 1})
    return path, model


def header(path):
    with checkpoint.safe_open(str(path), framework="pt") as opened:
        return json.loads(opened.metadata()["melstate"])


def rewrite(path, tensors=None, head=None):
    save_file(
        load_file(path) if tensors is None else tensors,
        path,
        metadata={"melstate": json.dumps(header(path) if head is None else head)},
    )


def test_round_trip(file):
    path, model = file
    loaded = checkpoint.read(path)
    assert (loaded.kind, loaded.config, loaded.mel, loaded.extra) == ("tiny", model.config, model.mel, {"symbols": 1})
    other = Tiny(**loaded.config)
    checkpoint.restore(other, loaded)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_half_is_half_the_size_and_close(file, tmp_path):
    path, model = file
    model = Tiny(width=128)
    checkpoint.save(path, model)
    half = tmp_path / "half.safetensors"
    checkpoint.save(half, model, half=True)
    assert half.stat().st_size < 0.52 * path.stat().st_size
    other = Tiny(width=128)
    checkpoint.restore(other, checkpoint.read(half))
    assert other.a.weight.dtype == torch.float32
    assert torch.equal(other.a.weight, model.a.weight.half().float())
    assert other.steps == 7


def test_half_refuses_what_fp16_cannot_hold(tmp_path):
    model = Tiny()
    model.a.bias.data[0] = 1e6
    with pytest.raises(ValueError, match="'a.bias' holds NaN or infinity"):
        checkpoint.save(tmp_path / "x.safetensors", model, half=True)
    assert list(tmp_path.iterdir()) == []


def test_build_imports_by_kind(file, monkeypatch):
    path, model = file
    monkeypatch.setattr(checkpoint, "import_module", lambda name: __import__("types").SimpleNamespace(Tiny=Tiny))
    built = checkpoint.build(checkpoint.read(path), CLASSES)
    assert not built.training and torch.equal(built.a.weight, model.a.weight)
    with pytest.raises(ValueError, match="unknown kind 'tiny'; known: other"):
        checkpoint.build(checkpoint.read(path), {"other": "x:Y"})
    head = header(path)
    head["config"]["depth"] = 3
    rewrite(path, head=head)
    with pytest.raises(ValueError, match="'tiny' refuses its configuration .*depth"):
        checkpoint.build(checkpoint.read(path), CLASSES)


@pytest.mark.parametrize("half", [False, True])
def test_the_mean_of_one_two_and_three(file, tmp_path, half):
    path, model = file
    others = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for other in others:
        checkpoint.save(other, Tiny(), half=half, extra={"symbols": 1})
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in checkpoint.read_mean([path]).tensors.items())
    for paths in ([path, others[0]], [path, *others]):
        found = checkpoint.read_mean(paths)
        assert found.extra == {"symbols": 1} and found.tensors["steps"] == 7
        for name in ("a.weight", "b.bias"):
            expected = sum(checkpoint.read(one).tensors[name].double() for one in paths) / len(paths)
            torch.testing.assert_close(found.tensors[name].double(), expected, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoint.read_mean([])


def test_checkpoints_that_differ_have_no_mean(file, tmp_path):
    path, _ = file
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, Tiny(width=5), extra={"symbols": 2})
    with pytest.raises(ValueError, match="other.safetensors and .*tiny.safetensors differ in config, tensors, symbols"):
        checkpoint.read_mean([path, other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("a.bias"), "tensor 'a.bias' is missing"),
        (lambda t: t.update(c=torch.zeros(1)), "tensor 'c' is unknown"),
        (lambda t: t.update({"a.bias": torch.zeros(5)}), r"'a.bias' has shape \(5,\), the model needs \(4,\)"),
        (lambda t: t["a.bias"].fill_(float("nan")), "'a.bias' holds NaN"),
        (lambda t: t["b.bias"][2:].fill_(float("-inf")), "'b.bias' holds NaN or inf"),
        (lambda t: t.update({"a.bias": torch.zeros(4, dtype=torch.int64)}), "'a.bias' has type torch.int64"),
    ],
)
def test_bad_tensors_are_refused_by_name(file, change, message):
    path, _ = file
    tensors = load_file(path)
    change(tensors)
    rewrite(path, tensors)
    model = Tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        checkpoint.restore(model, checkpoint.read(path))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99, this version reads 1"),
        ({"extra": None}, "header keys"),
        ({"surprise": 1}, "header keys"),
        ({"mel": {"hop": 256}}, "differ from the contract"),
        ({"mel": MelConfig().to_dict() | {"hop": "x"}}, "tiny.safetensors"),
    ],
)
def test_bad_headers_are_refused(file, change, message):
    path, _ = file
    rewrite(path, head=header(path) | change)
    with pytest.raises(ValueError, match=message):
        checkpoint.read(path)


def test_another_mel_or_kind_is_refused(file):
    path, _ = file
    with pytest.raises(ValueError, match="hop 256 != 300"):
        checkpoint.restore(Tiny(mel=MelConfig(hop=300).to_dict()), checkpoint.read(path))
    rewrite(path, head=header(path) | {"kind": "huge"})
    with pytest.raises(ValueError, match="holds a 'huge', the module is a 'tiny'"):
        checkpoint.restore(Tiny(), checkpoint.read(path))


def test_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.read(tmp_path)
    bare = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(1)}, bare)
    with pytest.raises(ValueError, match="without a 'melstate' header"):
        checkpoint.read(bare)


def test_pickle_never_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    path = tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="x.safetensors: truncated or not"):
        checkpoint.read(path)
    torch.save({"x": Bomb()}, path)
    with pytest.raises(ValueError, match="x.safetensors: truncated or not"):
        checkpoint.read(path)
    assert not (tmp_path / "exploded").exists()


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "tiny.safetensors"
    checkpoint.save(path, Tiny())
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(ValueError, match="tiny.safetensors: truncated") as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipped_bits_load_or_are_refused(tmp_path_factory, position, bit):
    path = tmp_path_factory.mktemp("flip") / "tiny.safetensors"
    checkpoint.save(path, Tiny())
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))
    model = Tiny()
    try:
        checkpoint.restore(model, checkpoint.read(path))
    except ValueError as error:
        assert "tiny.safetensors" in str(error)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_a_failed_save_keeps_the_old_file(file, monkeypatch):
    path, _ = file
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, Tiny())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_unserialisable_config_is_refused(tmp_path):
    model = Tiny()
    model.config["width"] = {1, 2}
    with pytest.raises(ValueError, match="header of 'tiny' is not JSON"):
        checkpoint.save(tmp_path / "x.safetensors", model)
