"""The convolutional generators compute what the published code does, written here plainly in (B, C, T)."""

import pytest
import torch
import torch.nn.functional as F

from melstate.vocoders.hifigan import V1, V2, V3, HiFiGAN, ISTFTNet
from melstate.vocoders.istft import Vocos
from melstate.vocoders.melgan import MelGAN
from melstate.vocoders.vocoder import VocoderBatch


def mels(frames, batch=1):
    generator = torch.Generator().manual_seed(0)
    return -4 + 1.5 * torch.randn(batch, 80, frames, generator=generator, dtype=torch.float64)


def plain_convs(model):
    """Weights in the order of the chain, as (weight, bias)."""
    return [(m.weight, m.bias) for m in model.chain.modules() if hasattr(m, "weight") and hasattr(m, "bias")]


def published_hifigan(model, mel, istft=False):
    config, params = model.config, iter(plain_convs(model))
    weight, bias = next(params)
    x = F.conv1d(mel, weight, bias, padding=3)
    for stride in config["strides"]:
        x = F.leaky_relu(x, 0.1)
        weight, bias = next(params)
        x = F.conv_transpose1d(x, weight, bias, stride=stride, padding=stride // 2)
        total = 0
        for kernel, dilations in zip(config["kernels"], config["dilations"], strict=True):
            y = x
            for dilation in dilations:
                weight, bias = next(params)
                z = F.conv1d(
                    F.leaky_relu(y, 0.1), weight, bias, dilation=dilation, padding=(kernel - 1) * dilation // 2
                )
                if config["paired"]:
                    weight, bias = next(params)
                    z = F.conv1d(F.leaky_relu(z, 0.1), weight, bias, padding=kernel // 2)
                y = y + z
            total = total + y
        x = total / len(config["kernels"])
    x = F.leaky_relu(x)
    weight, bias = next(params)
    if not istft:
        return torch.tanh(F.conv1d(x, weight, bias, padding=3)).squeeze(1)
    x = F.conv1d(F.pad(x, (1, 0), mode="reflect"), weight, bias, padding=3)
    magnitude, phase = torch.exp(x[:, :9]), torch.sin(x[:, 9:])
    window = torch.hann_window(16, dtype=mel.dtype)
    return torch.istft(torch.polar(magnitude, phase), 16, 4, 16, window)


@torch.no_grad()
@pytest.mark.parametrize("options", [V1, V2, V3], ids=["V1", "V2", "V3"])
def test_hifigan_is_the_published_arithmetic(options):
    torch.manual_seed(0)
    model = HiFiGAN(**{**options, "channels": options.get("channels", 512) // 8}).double()
    for name, parameter in model.named_parameters():  # louder than at birth; original0 are the norms
        parameter.fill_(1.5) if name.endswith("original0") else torch.nn.init.normal_(parameter, std=0.1)
    mel = mels(20, 2)
    expected = published_hifigan(model, mel)
    assert 0.02 < float(expected.std())
    torch.testing.assert_close(model.generate(VocoderBatch(mel, mel, mel))[0], expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(model(mel), expected, atol=1e-10, rtol=0)
    for _ in range(2):  # the copy leaves the model whole
        torch.testing.assert_close(model.for_inference().double()(mel), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(mel), expected, atol=1e-10, rtol=0)


def test_published_sizes():
    sizes = {
        name: sum(p.numel() for p in HiFiGAN(**options, weight_norm=False).parameters())
        for name, options in {"V1": V1, "V2": V2, "V3": V3}.items()
    }
    assert {name: round(size / 1e6, 2) for name, size in sizes.items()} == {"V1": 13.93, "V2": 0.93, "V3": 1.46}


@torch.no_grad()
def test_istftnet_is_the_published_arithmetic():
    torch.manual_seed(0)
    model = ISTFTNet(channels=32).double()
    mel = mels(20, 2)
    expected = published_hifigan(model, mel, istft=True)
    assert expected.shape == (2, 20 * 256)
    torch.testing.assert_close(model.generate(VocoderBatch(mel, mel, mel))[0], expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(model(mel), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    "model",
    [
        HiFiGAN(channels=32, strides=(8, 8, 2, 2)),
        ISTFTNet(channels=16),
        MelGAN(channels=32),
        MelGAN(channels=32, strides=(8, 4, 2), bands=4),
        Vocos(dim=16, layers=1),
    ],
    ids=["hifigan", "istftnet", "melgan", "multi-band melgan", "vocos"],
)
def test_training_form_is_the_offline_form_and_reaches_every_parameter(model):
    mel = mels(24, 2).float()
    audio, losses = model.generate(VocoderBatch(mel, torch.randn(2, 24 * 256), torch.zeros(2, 24)))
    torch.testing.assert_close(audio.detach(), model(mel), atol=1e-4, rtol=0)
    assert set(losses) == ({"bands"} if model.config.get("bands", 1) > 1 else set())
    (audio.square().mean() + sum(losses.values())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_strides_must_make_a_hop():
    with pytest.raises(ValueError, match="a frame becomes 128 samples .* hop is 256"):
        HiFiGAN(strides=(8, 8, 2))
