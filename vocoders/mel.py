"""The mel contract: one definition of the log-mel spectrogram, stored in every checkpoint and checked at every load.

The default is HiFi-GAN's 22.05 kHz mel: reflect padding, magnitude STFT, slaney-scale slaney-normalised triangles,
natural log.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MelConfig:
    """What a log-mel spectrogram is. Two models can be joined only if theirs are equal.

    Attributes:
        sample_rate: Hz.
        n_fft: FFT length in samples; the periodic Hann window has the same length.
        hop: samples between frames.
        n_mels: bands.
        fmin, fmax: Hz, edges of the lowest and the highest band.
        floor: smallest mel magnitude before the natural logarithm.
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop: int = 256
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft:
            raise ValueError(f"mel: hop must be in 1..n_fft, got hop={self.hop}, n_fft={self.n_fft}")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"mel: need 0 <= fmin < fmax <= sample_rate/2, got fmin={self.fmin}, fmax={self.fmax}, "
                f"sample_rate={self.sample_rate}"
            )
        if self.n_mels < 1 or self.floor <= 0:
            raise ValueError(f"mel: need n_mels >= 1 and floor > 0, got n_mels={self.n_mels}, floor={self.floor}")

    @property
    def padding(self) -> int:
        """Samples reflected at each end, so that n samples give n // hop frames."""
        return (self.n_fft - self.hop) // 2

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> MelConfig:
        """The inverse of `to_dict`. Raises ValueError on unknown or missing keys: a mel is never guessed."""
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise ValueError(
                f"mel: keys {sorted(values)} differ from the contract's {sorted(known)}; "
                "the checkpoint comes from another version"
            )
        return cls(**values)

    def differences(self, other: MelConfig) -> str:
        """'hop 256 != 300, …' for an error message; empty if equal."""
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(f"{k} {mine[k]} != {theirs[k]}" for k in mine if mine[k] != theirs[k])


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    linear = hz / (200.0 / 3)
    return np.where(hz < 1000.0, linear, 15.0 + 27.0 * np.log(np.maximum(hz, 1e-9) / 1000.0) / np.log(6.4))


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * (200.0 / 3), 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


@lru_cache(maxsize=8)
def mel_basis(config: MelConfig) -> Tensor:
    """Triangular filters (n_mels, n_fft//2 + 1), slaney scale and area normalisation; equals librosa.filters.mel.

    Own arithmetic so that speaking does not import librosa (a test holds the two equal).
    """
    fft_hz = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    low, high = _hz_to_mel(np.array([config.fmin, config.fmax]))
    edges = _mel_to_hz(np.linspace(low, high, config.n_mels + 2))
    ramps = edges[:, None] - fft_hz[None, :]
    width = np.diff(edges)
    lower = -ramps[:-2] / width[:-1, None]
    upper = ramps[2:] / width[1:, None]
    weights = np.maximum(0, np.minimum(lower, upper)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(weights.astype(np.float32))


def log_mel(audio: Tensor, config: MelConfig) -> Tensor:
    """Natural-log mel magnitudes.

    Args:
        audio: (..., samples) float in [-1, 1] at config.sample_rate; more than config.padding samples.
    Returns: (..., n_mels, samples // hop), same dtype.
    Raises: ValueError: audio too short to reflect.
    Source: Kong et al. 2020 (arXiv:2010.05646), the published meldataset.
    """
    samples = audio.shape[-1]
    if samples <= config.padding:
        raise ValueError(
            f"log_mel: {samples} samples cannot be reflected by {config.padding}; pad the clip with silence first"
        )
    flat = audio.reshape(-1, 1, samples)
    padded = torch.nn.functional.pad(flat, (config.padding, config.padding), mode="reflect").squeeze(1)
    window = torch.hann_window(config.n_fft, dtype=audio.dtype, device=audio.device)
    spectrum = torch.stft(padded, config.n_fft, config.hop, window=window, center=False, return_complex=True)
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    mel = mel_basis(config).to(audio) @ magnitude
    return torch.log(mel.clamp(min=config.floor)).reshape(*audio.shape[:-1], config.n_mels, -1)
