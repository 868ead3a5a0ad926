"""What vocoders are trained on: spectral reconstruction and adversarial losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.vocoders.mel import MelConfig, mel_basis
from melstate.vocoders.spectral import magnitudes

RESOLUTIONS = (2048, 1024, 512, 256)


@lru_cache(maxsize=16)
def _window(n_fft: int, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, device=device)


@lru_cache(maxsize=4)
def _basis(config: MelConfig, device: torch.device) -> Tensor:
    return mel_basis(config).to(device).T.contiguous()


def stft_loss(fake: Tensor, real: Tensor, known: Tensor | None = None) -> Tensor:
    """Spectral convergence plus L1 of log magnitudes, at one resolution.

    Args:
        fake, real: (B, T, bins) magnitudes.
        known: (B, 1, bins) bool, the bins to compare; None compares all.
    Source: Yamamoto et al. 2020, arXiv:1910.11480, equations 4 and 5.
    """
    distance = _l1(fake.log(), real.log(), known)
    if known is not None:
        fake, real = fake * known, real * known
    return torch.linalg.vector_norm(real - fake) / torch.linalg.vector_norm(real) + distance


def _l1(fake: Tensor, real: Tensor, known: Tensor | None) -> Tensor:
    if known is None:
        return F.l1_loss(fake, real)
    return ((fake - real).abs() * known).sum() / known.expand_as(real).sum()


def known_bins(bandwidth: Tensor, n_fft: int, sample_rate: int) -> Tensor:
    """(B,) Hz → (B, 1, n_fft / 2 + 1), whether a bin lies below."""
    hertz = torch.arange(n_fft // 2 + 1, device=bandwidth.device) * (sample_rate / n_fft)
    return hertz < bandwidth[:, None, None]


def reconstruction_losses(
    fake: Tensor,
    real: Tensor,
    config: MelConfig,
    resolutions: Sequence[int] = RESOLUTIONS,
    bandwidth: Tensor | None = None,
) -> dict[str, Tensor]:
    """`mel`: L1 between log-mels; `stft`: mean of `stft_loss` over the resolutions, hop a quarter of each.

    Both mels are computed from the segments, so that their reflected edges agree.

    Args:
        fake, real: (B, samples), samples a multiple of half the largest resolution and longer than it.
        bandwidth: as in VocoderBatch: only bins below it are compared, and mel bands that lie wholly below it.
    """
    total, mel = fake.new_zeros(()), None
    for n_fft in dict.fromkeys((*resolutions, config.n_fft)):
        hop = config.hop if n_fft == config.n_fft else n_fft // 4
        window = _window(n_fft, fake.device)
        a = magnitudes(fake.float(), window, hop)
        with torch.no_grad():
            b = magnitudes(real.float(), window, hop)
        known = None if bandwidth is None else known_bins(bandwidth, n_fft, config.sample_rate)
        if n_fft in resolutions:
            total = total + stft_loss(a, b, known) / len(resolutions)
        if n_fft == config.n_fft:
            basis = _basis(config, fake.device)
            bands = None if known is None else ((basis > 0) & ~known.mT).sum(1, keepdim=True) == 0
            with torch.autocast(fake.device.type, enabled=False):
                fake_mel, real_mel = (torch.log((x @ basis).clamp(min=config.floor)) for x in (a, b))
                mel = _l1(fake_mel, real_mel, bands)
    assert mel is not None
    return {"mel": mel, "stft": total}


ADVERSARIAL = ("hinge", "hinge_both", "squares")


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], kind: str = "hinge") -> Tensor:
    """Mean over discriminators of how badly they tell real from fake.

    Args:
        real, fake: one logit tensor a discriminator.
        kind: "hinge" (MelGAN), "hinge_both" (Vocos; the generator's loss differs) or "squares" (HiFi-GAN, LSGAN).
    """
    if _known(kind) == "squares":
        losses = [(1 - r).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
    else:
        losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def adversarial_loss(fake: Sequence[Tensor], kind: str = "hinge") -> Tensor:
    """Mean over discriminators of how well they see through the generator.

    Arguments as `discriminator_loss`. "hinge" is -D without bound (Kumar et al. 2019, arXiv:1910.06711, equation 2);
    "hinge_both" stops rewarding beyond D = 1.
    """
    if _known(kind) == "hinge":
        losses = [-f.mean() for f in fake]
    elif kind == "hinge_both":
        losses = [F.relu(1 - f).mean() for f in fake]
    else:
        losses = [(1 - f).square().mean() for f in fake]
    return torch.stack(losses).mean()


def _known(kind: str) -> str:
    if kind not in ADVERSARIAL:
        raise ValueError(f"adversarial loss must be one of {', '.join(map(repr, ADVERSARIAL))}, got {kind!r}")
    return kind


def feature_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 between activations, real ones as targets: summed over layers, mean over discriminators.

    Source: Kumar et al. 2019, arXiv:1910.06711, equation 4.
    """
    distances = [
        torch.stack([F.l1_loss(f, r.detach()) for r, f in zip(real_maps, fake_maps, strict=True)]).sum()
        for real_maps, fake_maps in zip(real, fake, strict=True)
    ]
    return torch.stack(distances).mean()
