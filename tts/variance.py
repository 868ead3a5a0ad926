"""Pitch, energy and duration of symbols: what they are in a recording, and how they are predicted from text.

Source: Łańcucki 2021 (FastPitch, arXiv:2006.06873), section 2; Ren et al. 2021 (FastSpeech 2, arXiv:2006.04558).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.vocoders.mel import MelConfig, mel_basis


def frame_energy(mel: Tensor) -> Tensor:
    """(B, n_mels, T) natural-log mel magnitudes → (B, T) log of their root mean square."""
    return 0.5 * ((2 * mel).logsumexp(1) - torch.tensor(float(mel.shape[1])).log())


class SymbolPredictor(nn.Module):
    """One number per symbol: two convolutions of three taps, each with ReLU, LayerNorm, dropout; a projection."""

    def __init__(self, dim: int, hidden: int, dropout: float, bias: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(dim, hidden, 3, padding=1), nn.Conv1d(hidden, hidden, 3, padding=1)
        self.first_norm, self.second_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, 1)
        nn.init.constant_(self.out.bias, bias)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """(B, N, dim), inside (B, N, 1) → (B, N) float32."""
        for conv, norm in ((self.first, self.first_norm), (self.second, self.second_norm)):
            x = self.dropout(norm(F.relu(conv((x * inside).transpose(1, 2))).transpose(1, 2)))
        return self.out(x).squeeze(-1).float()


def harmonic_bands(mel: MelConfig, highest: float = 2000.0) -> Tensor:
    """Centre frequencies in Hz of the bands narrow enough to tell a voice's harmonics apart: those below `highest`."""
    basis = mel_basis(mel).double()
    hertz = torch.linspace(0, mel.sample_rate / 2, basis.shape[1], dtype=torch.float64)
    centres = (basis @ hertz) / basis.sum(1).clamp(min=1e-12)
    return centres[centres < highest].float()


def harmonic_comb(f0: Tensor, voiced: Tensor, bands: Tensor) -> Tensor:
    """Where each mel band lies between harmonics: cos(2π f_band / F0), 1 on a harmonic, −1 midway, 0 where unvoiced.

    Args:
        f0: (...) Hz, > 0.
        voiced: (...) 1 where voiced.
        bands: (K,) Hz.
    Returns: (..., K).
    """
    return torch.cos(2 * torch.pi * (bands / f0[..., None])) * voiced[..., None]
