import torch

from melstate.vocoders.layers import Span
from melstate.vocoders.pqmf import PQMF


def noise(samples, seed=0):
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def test_analysis_then_synthesis_gives_the_signal_back():
    bank, audio = PQMF(), noise(4000)
    bands = bank.analysis(audio)
    assert bands.shape == (1, 1000, 4)
    again = bank(bands).squeeze(2)
    error = (again - audio)[:, 100:-100]
    assert float(10 * torch.log10(audio.square().mean() / error.square().mean())) > 35


def test_a_tone_falls_into_its_band():
    bank = PQMF()
    n = torch.arange(4000)
    for band in range(4):
        tone = torch.sin(torch.pi * (band + 0.5) / 4 * n)[None]
        power = bank.analysis(tone)[:, 50:-50].square().mean((0, 1))
        assert int(power.argmax()) == band
        others = power.sum() - power[band]
        assert float(others / power[band]) < 1e-4


def test_synthesis_is_zero_stuffing_and_filtering():
    bank, bands = PQMF(), noise(400).view(1, 100, 4)
    stuffed = torch.zeros(1, 4, 400)
    stuffed[:, :, ::4] = 4 * bands.transpose(1, 2)
    expected = torch.nn.functional.conv1d(stuffed, bank.filters.flip(1).unsqueeze(0), padding=31).squeeze(1)
    torch.testing.assert_close(bank(bands).squeeze(2), expected, atol=1e-5, rtol=0)


def test_tiles():
    bank, bands = PQMF(), noise(480).view(1, 120, 4)
    whole, cache, span, pieces = bank(bands), bank.initial(1, bands), Span(0, 120), []
    padded = torch.nn.functional.pad(bands, (0, 0, 0, 40))
    for at in range(0, 160, 20):
        audio, _, cache = bank.step(padded[:, at : at + 20], Span(at, span.length), cache)
        pieces.append(audio)
    late = bank.delay
    torch.testing.assert_close(torch.cat(pieces, 1)[:, late : late + 480], whole, atol=1e-6, rtol=0)
