"""bfloat16 where it is asked for: close to float32 on real speech, and only where it was made."""

from pathlib import Path

import pytest
import torch

from melstate.vocoders import wav
from melstate.vocoders.hifigan import V3, HiFiGAN, ISTFTNet
from melstate.vocoders.istft import Vocos
from melstate.vocoders.kinds import load
from melstate.vocoders.mel import MelConfig, log_mel
from melstate.vocoders.melgan import MelGAN
from melstate.vocoders.vocoder import Vocoder

SPEECH = Path(__file__).parents[1] / "speech" / "wavs"
SHIPPED = Path(__file__).parents[2] / "tts" / "voices" / "kathleen" / "vocoder.safetensors"
VOCODERS = {
    "the shipped voice's": lambda: load(SHIPPED),
    "vocos": lambda: Vocos(dim=64, layers=3),
    "istftnet": lambda: ISTFTNet(channels=64),
    "hifigan": lambda: HiFiGAN(channels=64),
    "hifigan V3": lambda: HiFiGAN(**{**V3, "channels": 64}),
}


@pytest.fixture(scope="module")
def mel():
    """A second and a half of speech."""
    audio, _ = wav.read(sorted(SPEECH.iterdir())[0], 22050)
    return log_mel(torch.from_numpy(audio[8000:41075]), MelConfig())[None]


@torch.no_grad()
@pytest.mark.parametrize("name", VOCODERS)
def test_rounding_is_hardly_heard(name, mel):
    torch.manual_seed(0)
    vocoder = VOCODERS[name]()
    exact, rounded = vocoder.for_inference()(mel), vocoder.for_inference("bf16")(mel)
    assert rounded.dtype == torch.float32
    difference = (log_mel(rounded, MelConfig()) - log_mel(exact, MelConfig())).abs().mean()
    assert 1e-5 < float(difference) < 0.05
    # The model it was made from is as it was.
    assert {p.dtype for p in vocoder.parameters()} == {torch.float32}
    torch.testing.assert_close(vocoder(mel), exact, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("bands", [1, 4])
def test_melgan_untrained_is_all_but_still(bands, mel):
    """So its samples are compared: its log-mel is that of the rounding."""
    torch.manual_seed(0)
    vocoder = MelGAN(channels=64, strides=(8, 8, 2, 2) if bands == 1 else (8, 4, 2), bands=bands)
    exact, rounded = vocoder.for_inference()(mel), vocoder.for_inference("bf16")(mel)
    assert 0 < float((rounded - exact).abs().max()) < 0.02 * float(exact.abs().max())


@torch.no_grad()
def test_packed_weights_are_the_weights(mel):
    """Packing changes nothing; moving the model undoes it, and changed weights are then seen."""
    torch.manual_seed(0)
    vocoder = HiFiGAN(channels=64)
    packed = vocoder.for_inference()
    torch.testing.assert_close(packed(mel), vocoder(mel), atol=1e-6, rtol=0)
    moved = packed.double()
    torch.testing.assert_close(moved(mel.double()).float(), vocoder(mel), atol=1e-5, rtol=0)
    for parameter in moved.parameters():
        parameter.zero_()
    assert float(moved(mel.double()).abs().max()) == 0


def test_unknown_precisions_are_refused():
    for vocoder in (HiFiGAN(channels=16), Vocos(dim=16, layers=1)):
        with pytest.raises(ValueError, match="precision must be 'fp32' or 'bf16', got 'int8'"):
            vocoder.for_inference("int8")

    class Plain(Vocoder):
        kind = "plain"

    plain = Plain()
    assert plain.for_inference() is plain and not plain.training
    with pytest.raises(ValueError, match="plain: precision must be 'fp32', got 'bf16'"):
        plain.for_inference("bf16")
