import pytest
import torch

from melstate.vocoders.discriminators import MelGANScales, MultiPeriod, MultiResolution, MultiScale
from melstate.vocoders.losses import adversarial_loss, discriminator_loss, feature_loss, reconstruction_losses
from melstate.vocoders.mel import MelConfig, log_mel
from melstate.vocoders.spectral import frames_of, magnitudes, overlap_add


def test_magnitudes_are_the_stft_of_the_mel_contract_and_so_is_their_gradient():
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(2, 2048, generator=generator, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(256, dtype=torch.float64)
    ours = magnitudes(audio, window, 64)
    padded = torch.nn.functional.pad(audio.unsqueeze(1), (96, 96), mode="reflect").squeeze(1)
    spectrum = torch.stft(padded, 256, 64, window=window, center=False, return_complex=True).transpose(1, 2)
    reference = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    torch.testing.assert_close(ours, reference, atol=1e-12, rtol=1e-12)
    weights = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    (a,) = torch.autograd.grad((ours * weights).sum(), audio)
    (b,) = torch.autograd.grad((reference * weights).sum(), audio)
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_overlap_add_is_the_transpose_of_framing():
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(2, 9, 8, generator=generator, dtype=torch.float64)
    frames = torch.randn(2, 6, 32, generator=generator, dtype=torch.float64)
    left, right = (frames_of(blocks, 4) * frames).sum(), (blocks * overlap_add(frames, 4)).sum()
    torch.testing.assert_close(left, right)


def test_reconstruction_losses():
    audio = 0.1 * torch.randn(2, 48 * 256, generator=torch.Generator().manual_seed(0))
    config = MelConfig()
    same = reconstruction_losses(audio, audio, config)
    assert float(same["mel"]) == 0 and float(same["stft"]) == 0
    half = reconstruction_losses(audio / 2, audio, config)
    assert float(half["mel"]) == pytest.approx(0.693, abs=0.01)
    expected = torch.nn.functional.l1_loss(log_mel(audio / 2, config), log_mel(audio, config))
    assert float(half["mel"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(half["stft"]) == pytest.approx(0.5 + 0.693, abs=0.01)


def test_nothing_is_learned_above_the_bandwidth():
    """A high tone in the output, or its absence, neither costs nor has a gradient; below, everything counts."""
    config, time = MelConfig(), torch.arange(48 * 256) / 22050
    real = 0.1 * torch.randn(2, 48 * 256, generator=torch.Generator().manual_seed(0))
    high, low = (0.5 * torch.sin(2 * torch.pi * hertz * time) for hertz in (9500.0, 3000.0))

    def losses(extra, *bandwidth):
        fake = (real + extra).requires_grad_()
        found = reconstruction_losses(fake, real, config, bandwidth=torch.tensor(bandwidth) if bandwidth else None)
        (gradient,) = torch.autograd.grad(sum(found.values()), fake)
        return {name: float(value.detach()) for name, value in found.items()}, gradient

    whole, _ = losses(high)
    cut, gradient = losses(high, 7600.0, 7600.0)
    assert whole["stft"] > 0.5 and cut["stft"] < 0.02 and cut["mel"] < 0.02
    spectrum = torch.fft.rfft(gradient[0] * torch.hann_window(48 * 256)).abs()
    edge = round(8000 / 22050 * 48 * 256)
    assert float(spectrum[edge:].square().sum()) < 1e-4 * float(spectrum.square().sum())
    assert losses(low, 7600.0, 7600.0)[0]["stft"] > 0.5
    half, gradient = losses(high, 7600.0, float("inf"))
    assert cut["stft"] < half["stft"] < whole["stft"]
    assert float(gradient[1].abs().mean()) > float(gradient[0].abs().mean())
    all_of_it, _ = losses(low, float("inf"), float("inf"))
    assert all_of_it == pytest.approx(losses(low)[0], rel=1e-4)


def test_adversarial_losses_at_their_ends():
    right, wrong = [torch.ones(3)], [-torch.ones(3)]
    for kind in ("hinge", "hinge_both"):
        assert float(discriminator_loss(right, wrong, kind)) == 0
        assert float(discriminator_loss(wrong, right, kind)) == 4
    assert float(discriminator_loss([torch.ones(3)], [torch.zeros(3)], "squares")) == 0
    assert float(adversarial_loss([torch.zeros(3)], "squares")) == 1
    with pytest.raises(ValueError, match="one of 'hinge', 'hinge_both', 'squares', got 'wasserstein'"):
        adversarial_loss(right, "wasserstein")


@pytest.mark.parametrize(("kind", "losses"), [("hinge", (1, 0, -1, -3)), ("hinge_both", (2, 1, 0, 0))])
def test_only_one_hinge_rewards_without_bound(kind, losses):
    found = [float(adversarial_loss([torch.full((3,), logit)], kind)) for logit in (-1.0, 0.0, 1.0, 3.0)]
    assert found == list(losses)


@pytest.mark.parametrize(
    "module",
    [
        MultiPeriod(channels=(2, 4, 4, 4, 4)),
        MultiResolution(channels=2),
        MultiScale(width=16),
        MelGANScales(channels=4),
    ],
    ids=["periods", "resolutions", "scales", "melgan"],
)
def test_discriminators_pass_gradients_of_every_part(module):
    audio = 0.1 * torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    fake = audio.clone().requires_grad_()
    module.eval()  # in training, spectral normalisation moves on at every call
    verdicts, truth = module(fake), module(audio)
    assert len(verdicts) == len(module.parts)
    maps = ([v.activations for v in truth], [v.activations for v in verdicts])
    assert feature_loss(*maps).item() == 0
    adversarial_loss([v.logits for v in verdicts]).backward()
    assert bool((fake.grad != 0).any())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())


@torch.no_grad()
def test_discriminators_of_the_papers_sizes():
    millions = {type(m).__name__: sum(p.numel() for p in m.parameters()) / 1e6 for m in (MultiPeriod(), MultiScale())}
    assert millions["MultiPeriod"] == pytest.approx(41.1, abs=0.1)
    assert millions["MultiScale"] == pytest.approx(29.6, abs=0.1)
