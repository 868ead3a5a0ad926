"""Checkpoints in the authors' layout. The authors' own weights and code are compared where a copy is at hand."""

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from melstate.vocoders.checkpoint import save
from melstate.vocoders.hifigan import V2, V3, HiFiGAN
from melstate.vocoders.kinds import load
from melstate.vocoders.mel import MelConfig, log_mel
from melstate.vocoders.published import read_hifigan, read_melgan
from melstate.vocoders.wav import read

CONFIG = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}
SMALL_V3 = {
    **CONFIG,
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
}


def layer(tensors, name, *shape, generator):
    """Random weights under the names of PyTorch's old weight_norm."""
    tensors[f"{name}.weight_v"] = torch.randn(shape, generator=generator)
    tensors[f"{name}.weight_g"] = 0.5 + torch.rand(shape[0], 1, 1, generator=generator)
    outputs = shape[1] if "up" in name else shape[0]
    tensors[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)


def weight(tensors, name):
    v, g = tensors[f"{name}.weight_v"].double(), tensors[f"{name}.weight_g"].double()
    return v * g / v.flatten(1).norm(dim=1)[:, None, None], tensors[f"{name}.bias"].double()


def authors_hifigan(config, seed=0):
    """A state dict in the authors' layout, and their forward pass on it."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    channels, kernels = config["upsample_initial_channel"], config["resblock_kernel_sizes"]
    layer(tensors, "conv_pre", channels, 80, 7, generator=generator)
    names = ["convs1", "convs2"] if config["resblock"] == "1" else ["convs"]
    for i, size in enumerate(config["upsample_kernel_sizes"]):
        layer(tensors, f"ups.{i}", channels, channels // 2, size, generator=generator)
        channels //= 2
        for j, kernel in enumerate(kernels):
            for name in names:
                for n in range(len(config["resblock_dilation_sizes"][j])):
                    full = f"resblocks.{len(kernels) * i + j}.{name}.{n}"
                    layer(tensors, full, channels, channels, kernel, generator=generator)
    layer(tensors, "conv_post", 1, channels, 7, generator=generator)

    def forward(mel):
        x = F.conv1d(mel, *weight(tensors, "conv_pre"), padding=3)
        for i, stride in enumerate(config["upsample_rates"]):
            x = F.conv_transpose1d(
                F.leaky_relu(x, 0.1), *weight(tensors, f"ups.{i}"), stride=stride, padding=stride // 2
            )
            total = 0
            for j, kernel in enumerate(kernels):
                y = x
                for n, dilation in enumerate(config["resblock_dilation_sizes"][j]):
                    z = y
                    for name in names:
                        d = dilation if name != "convs2" else 1
                        w = weight(tensors, f"resblocks.{len(kernels) * i + j}.{name}.{n}")
                        z = F.conv1d(F.leaky_relu(z, 0.1), *w, dilation=d, padding=(kernel - 1) * d // 2)
                    y = y + z
                total = total + y
            x = total / len(kernels)
        return torch.tanh(F.conv1d(F.leaky_relu(x), *weight(tensors, "conv_post"), padding=3)).squeeze(1)

    return tensors, forward


def authors_melgan(seed=0):
    generator, tensors = torch.Generator().manual_seed(seed), {}
    channels, strides, ups = 512, (8, 8, 2, 2), (3, 8, 13, 18)
    layer(tensors, "model.1", channels, 80, 7, generator=generator)
    for up, stride in zip(ups, strides, strict=True):
        tensors[f"model.{up}.weight_v"] = torch.randn(channels, channels // 2, 2 * stride, generator=generator)
        tensors[f"model.{up}.weight_g"] = 0.5 + torch.rand(channels, 1, 1, generator=generator)
        channels //= 2
        tensors[f"model.{up}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        for block in range(up + 1, up + 4):
            layer(tensors, f"model.{block}.block.2", channels, channels, 3, generator=generator)
            layer(tensors, f"model.{block}.block.4", channels, channels, 1, generator=generator)
            layer(tensors, f"model.{block}.shortcut", channels, channels, 1, generator=generator)
    layer(tensors, "model.24", 1, channels, 7, generator=generator)

    def forward(log10_mel):
        x = F.conv1d(F.pad(log10_mel, (3, 3), mode="reflect"), *weight(tensors, "model.1"))
        for up, stride in zip(ups, strides, strict=True):
            w = weight(tensors, f"model.{up}")
            x = F.conv_transpose1d(F.leaky_relu(x, 0.2), *w, stride=stride, padding=stride // 2)
            for n in range(3):
                d, name = 3**n, f"model.{up + 1 + n}"
                y = F.pad(F.leaky_relu(x, 0.2), (d, d), mode="reflect")
                y = F.leaky_relu(F.conv1d(y, *weight(tensors, f"{name}.block.2"), dilation=d), 0.2)
                y = F.conv1d(y, *weight(tensors, f"{name}.block.4"))
                x = F.conv1d(x, *weight(tensors, f"{name}.shortcut")) + y
        x = F.pad(F.leaky_relu(x, 0.2), (3, 3), mode="reflect")
        return torch.tanh(F.conv1d(x, *weight(tensors, "model.24"))).squeeze(1)

    return tensors, forward


def mels(frames=12):
    generator = torch.Generator().manual_seed(1)
    return (-4 + 1.5 * torch.randn(1, 80, frames, generator=generator)).double()


def write(folder, tensors, config=None):
    torch.save({"generator": tensors} if config else tensors, folder / "generator")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "generator", folder / "config.json"


@torch.no_grad()
@pytest.mark.parametrize("config", [CONFIG, SMALL_V3], ids=["V1", "V3"])
def test_hifigan_weights_in_the_authors_layout(tmp_path, config):
    tensors, forward = authors_hifigan(config)
    model = read_hifigan(*write(tmp_path, tensors, config)).double()
    expected = forward(mels())
    assert float(expected.std()) > 0.01
    # The weights themselves were rounded to float32.
    torch.testing.assert_close(model(mels()), expected, atol=1e-5, rtol=0)
    assert model.mel == MelConfig()


@torch.no_grad()
def test_melgan_weights_in_the_authors_layout(tmp_path):
    tensors, forward = authors_melgan()
    model = read_melgan(write(tmp_path, tensors)[0]).double()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(4.26e6, rel=0.01)
    natural = mels()
    torch.testing.assert_close(model(natural), forward(natural / torch.log(torch.tensor(10.0))), atol=1e-5, rtol=0)
    assert model.mel == MelConfig(fmax=11025.0)


def test_differences_are_refused_by_the_tensors_name(tmp_path):
    tensors, _ = authors_hifigan(CONFIG)

    def refuse(match, tensors=tensors, config=CONFIG):
        with pytest.raises(ValueError, match=match):
            read_hifigan(*write(tmp_path, tensors, config))

    refuse("'conv_pre.bias' has shape", config={**CONFIG, "upsample_initial_channel": 64})
    refuse("resblocks.0.convs.0.bias' is missing", config={**CONFIG, "resblock": "2"})
    refuse("'ups.3.bias' is missing", {k: v for k, v in tensors.items() if k != "ups.3.bias"})
    refuse("'extra' is unknown", {**tensors, "extra": torch.zeros(1)})
    refuse("'conv_post.weight_v' holds NaN", {**tensors, "conv_post.weight_v": torch.full((1, 2, 7), torch.nan)})
    refuse("no key 'fmax'", config={k: v for k, v in CONFIG.items() if k != "fmax"})
    refuse("not twice", config={**CONFIG, "upsample_kernel_sizes": [15, 16, 4, 4]})
    refuse("hop is 300", config={**CONFIG, "hop_size": 300})
    weights, config = write(tmp_path, tensors, CONFIG)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable torch checkpoint"):
        read_hifigan(weights, config)
    torch.save(tensors, weights)
    with pytest.raises(ValueError, match="no 'generator'"):
        read_hifigan(weights, config)
    with pytest.raises(FileNotFoundError):
        read_melgan(tmp_path / "none")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"generator": {"conv_pre.bias": SimpleNamespace()}}, tmp_path / "generator")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match="not a readable torch checkpoint"):
        read_hifigan(tmp_path / "generator", tmp_path / "config.json")


def test_a_published_generator_travels_as_one_of_ours(tmp_path):
    tensors, _ = authors_hifigan(CONFIG)
    model = read_hifigan(*write(tmp_path, tensors, CONFIG))
    save(tmp_path / "model.safetensors", model)
    again = load(tmp_path / "model.safetensors")
    assert again.kind == "hifigan"
    assert torch.equal(again(mels().float()), model(mels().float()))


@pytest.mark.slow
@torch.no_grad()
def test_the_authors_weights_and_code(tmp_path):
    """MELSTATE_HIFIGAN: a folder with hifigan/models.py and hifigan/LJ_V2/{generator_v2,config.json}, such as a copy of
    github.com/roatienza/efficientspeech; MELSTATE_SPEECH: a 22,050 Hz recording."""
    folder, speech = os.environ.get("MELSTATE_HIFIGAN"), os.environ.get("MELSTATE_SPEECH")
    if folder is None or speech is None:
        pytest.skip("MELSTATE_HIFIGAN and MELSTATE_SPEECH are not set")
    source = Path(folder) / "hifigan"
    spec = importlib.util.spec_from_file_location("authors", source / "models.py")
    assert spec is not None and spec.loader is not None
    authors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(authors)
    mel = log_mel(torch.from_numpy(read(speech, 22050)[0][: 4 * 22050]), MelConfig())[None]
    for name, options in {"LJ_V2": V2, "random V1": {}, "random V3": V3}.items():
        if name == "LJ_V2":
            settings = json.loads((source / name / "config.json").read_text())
            theirs = authors.Generator(SimpleNamespace(**settings))
            weights = torch.load(source / name / "generator_v2", map_location="cpu", weights_only=True)
            theirs.load_state_dict(weights["generator"])
            ours = read_hifigan(source / name / "generator_v2", source / name / "config.json")
        else:
            settings = {**(CONFIG if name == "random V1" else SMALL_V3)}
            settings["upsample_initial_channel"] = HiFiGAN(**options, weight_norm=False).config["channels"]
            torch.manual_seed(0)
            theirs = authors.Generator(SimpleNamespace(**settings))
            ours = read_hifigan(*write(tmp_path, theirs.state_dict(), settings))
        expected = theirs.eval()(mel)[:, 0]
        torch.testing.assert_close(ours(mel), expected, atol=1e-5, rtol=0)
