"""Short-time spectra on the mel contract's grid: frame t is centred half a hop into its hop of samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def frames_of(blocks: Tensor, overlap: int) -> Tensor:
    """(B, T + overlap - 1, hop) consecutive blocks of samples → (B, T, overlap * hop) overlapping frames."""
    frames = blocks.shape[1] - overlap + 1
    return torch.cat([blocks[:, k : k + frames] for k in range(overlap)], dim=2)


def overlap_add(frames: Tensor, overlap: int) -> Tensor:
    """(B, T, overlap * hop) → (B, T + overlap - 1, hop): the transpose of `frames_of`."""
    parts = frames.unflatten(2, (overlap, -1)).unbind(2)
    total = F.pad(parts[0], (0, 0, 0, overlap - 1))
    for k in range(1, overlap):
        total = total + F.pad(parts[k], (0, 0, k, overlap - 1 - k))
    return total


class _Magnitude(torch.autograd.Function):
    """sqrt(re² + im² + 1e-9) of the real FFT over the last dimension, n_fft even.

    Its own gradient because autograd's goes through a full complex transform: this one is an inverse real FFT.
    """

    @staticmethod
    def forward(ctx, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        ctx.save_for_backward(spectrum, magnitude)
        return magnitude

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        spectrum, magnitude = ctx.saved_tensors
        weight = gradient / magnitude
        # irfft counts each inner bin twice (with its mirror) and divides by n_fft.
        weight[..., 1:-1] *= 0.5
        n_fft = 2 * (magnitude.shape[-1] - 1)
        return torch.fft.irfft(spectrum * weight, n=n_fft) * n_fft


def magnitudes(audio: Tensor, window: Tensor, hop: int) -> Tensor:
    """STFT magnitudes sqrt(re² + im² + 1e-9), reflect-padded like the mel contract.

    Args:
        audio: (B, samples), samples a multiple of hop and more than (n_fft - hop) / 2.
        window: (n_fft,), n_fft an even multiple of hop.
    Returns: (B, samples / hop, n_fft / 2 + 1).
    """
    padding = (window.shape[0] - hop) // 2
    padded = F.pad(audio.unsqueeze(1), (padding, padding), mode="reflect").squeeze(1)
    frames = frames_of(padded.unflatten(1, (-1, hop)), window.shape[0] // hop) * window
    return _Magnitude.apply(frames)
