"""Published vocoders in a voice: exported from the authors' files, loaded, spoken with."""

import json

import pytest
import tiny_voice
import torch

from melstate.recipes import export
from melstate.recipes.models import read_vocoder
from melstate.tts.voice import Voice
from melstate.vocoders import checkpoint, published
from melstate.vocoders.hifigan import HiFiGAN
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.melgan import MelGAN

HIFIGAN = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 16,
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


def as_published(names):
    """Random weights under the authors' names, as PyTorch's old weight_norm stores them; not so loud that tanh is all
    or nothing."""
    tensors = {}
    for prefix, layer in names:
        torch.nn.init.normal_(layer.weight, std=0.7 / layer.weight[0].numel() ** 0.5)
        weight = layer.weight.detach()
        tensors[f"{prefix}.weight_g"] = weight.flatten(1).norm(dim=1)[:, None, None]
        tensors[f"{prefix}.weight_v"] = 3 * weight
        tensors[f"{prefix}.bias"] = layer.bias.detach()
    return tensors


@pytest.fixture(params=["hifigan", "melgan"])
def files(request, tmp_path, tiny_kinds, monkeypatch):
    """(kind, mel) and in the folder: an acoustic model of that mel, the published file, a licence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("melstate.tts.text.FrontEnd", lambda lexicon=None: tiny_voice.TinyFrontEnd())
    torch.manual_seed(0)
    mel = MelConfig(fmax=8000.0 if request.param == "hifigan" else 11025.0)
    checkpoint.save(tmp_path / "acoustic.safetensors", tiny_voice.TinyAcoustic(mel.to_dict()), extra={"symbols": 1})
    if request.param == "hifigan":
        names = published._hifigan_names(HiFiGAN(channels=16, weight_norm=False))
        torch.save({"generator": as_published(names)}, tmp_path / "generator")
        (tmp_path / "config.json").write_text(json.dumps(HIFIGAN))
    else:
        torch.save(as_published(published._melgan_names(MelGAN(weight_norm=False))), tmp_path / "generator")
    (tmp_path / "LICENCE").write_text("MIT")
    return request.param, mel


def test_a_voice_speaks_with_a_published_vocoder(files):
    kind, mel = files
    flags = ["--licence", "MIT", "--licence-file", "LICENCE", "--description", "Untrained.", "--full"]
    assert export.main(["voice", "--acoustic", "acoustic.safetensors", "--vocoder", "generator", *flags]) == 0
    voice = Voice.load("./voice")
    assert voice.vocoder.kind == kind and voice.vocoder.mel == mel and not voice.vocoder.takes_f0
    frames = -4 + torch.randn(1, 80, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(voice.vocoder(frames), read_vocoder("generator")(frames), atol=1e-6, rtol=0)
    said = voice.synthesize("Hello you.")
    assert said.seconds > 0.2 and abs(said.samples).max() > 1e-3
    pieces = [piece.samples for piece in voice.stream("Hello you.", chunk=7)]
    assert len(pieces) > 2 and torch.equal(
        torch.cat([torch.from_numpy(p) for p in pieces]), torch.from_numpy(said.samples)
    )


def test_what_is_not_a_generator_is_named(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list")
    torch.save({"epoch": 3}, tmp_path / "numbers")
    (tmp_path / "text").write_text("no weights")
    for name, message in (("list", "not a state dict"), ("numbers", "not a state dict"), ("text", "not a readable")):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            read_vocoder(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read_vocoder(tmp_path / "none")
    torch.save({"generator": {}}, tmp_path / "lonely")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read_vocoder(tmp_path / "lonely")
