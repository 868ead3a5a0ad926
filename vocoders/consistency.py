"""Mel consistency: scales the spectrum of audio, band by band, toward the log-mel it was made from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from melstate.vocoders.mel import MelConfig, mel_basis
from melstate.vocoders.spectral import frames_of


def between_bands(mel: MelConfig) -> Tensor:
    """(n_mels, n_fft//2 + 1): values @ this interpolates values at the bands' centres linearly at every bin."""
    basis = mel_basis(mel).double().numpy()
    bins = np.arange(basis.shape[1])
    centres = basis @ bins / np.maximum(basis.sum(1), 1e-8)
    return torch.from_numpy(np.stack([np.interp(bins, centres, row) for row in np.eye(len(centres))])).float()


class MelConsistency(nn.Module):
    """One step toward audio whose log-mel is the given one; phases stay as they are.

    A frame's spectrum is multiplied by exp(strength · d), where d is the difference of the log-mels, interpolated
    between bands and bounded. Frames are then overlap-added, so that several steps come closer than one: the
    alternating projections of Griffin & Lim 1984, on mel magnitudes and from phases that are already good.

    Args:
        mel: the contract.
        strength: above 1 goes beyond a frame's own difference, since its neighbours pull back; below 2 converges.
        limit: largest |strength · d|, nats.
    """

    basis: Tensor
    spread: Tensor

    def __init__(self, mel: MelConfig, strength: float = 1.5, limit: float = 4.0) -> None:
        super().__init__()
        if not 0 < strength < 2:
            raise ValueError(f"mel consistency: strength must be above 0 and below 2, got {strength}")
        self.strength, self.limit, self.floor = strength, limit, mel.floor
        self.overlap = mel.n_fft // mel.hop
        self.register_buffer("basis", mel_basis(mel).T.contiguous(), persistent=False)
        self.register_buffer("spread", between_bands(mel), persistent=False)

    def windows(self, audio: Tensor, mel: Tensor, window: Tensor) -> Tensor:
        """Windowed frames that overlap-add to the audio of the next step.

        Args:
            audio: (B, T + overlap - 1, hop) intervals; frame t lies over t .. t + overlap - 1.
            mel: (B, T, n_mels) log-mel of the frames.
            window: (n_fft,).
        Returns: (B, T, n_fft).
        """
        spectrum = torch.fft.rfft(frames_of(audio, self.overlap) * window)
        power = spectrum.real.square() + spectrum.imag.square()
        is_mel = ((power + 1e-9).sqrt() @ self.basis).clamp(min=self.floor).log()
        gain = (self.strength * (mel - is_mel)).clamp(-self.limit, self.limit)
        return torch.fft.irfft(spectrum * (gain @ self.spread).exp(), n=window.shape[0]) * window
