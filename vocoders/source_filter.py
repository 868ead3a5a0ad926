"""Source-filter spectral head: filters a pulse train and noise frame by frame, with F0 estimated from the mel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.vocoders.convnext import ConvNeXt
from melstate.vocoders.excitation import noise, pulse_train
from melstate.vocoders.f0 import PitchEstimator
from melstate.vocoders.mel import MelConfig, mel_basis
from melstate.vocoders.spectral import frames_of, overlap_add
from melstate.vocoders.vocoder import Vocoder, VocoderBatch


def envelope_matrix(mel: MelConfig) -> tuple[Tensor, Tensor]:
    """The spectral envelope a mel frame already tells: log magnitude = log_mel @ matrix + offset.

    Band magnitudes, divided by the area of their filters, are interpolated linearly between band centres.

    Returns: matrix (n_mels, n_fft//2 + 1) and offset (n_fft//2 + 1,).
    """
    basis = mel_basis(mel).double().numpy()
    area = np.maximum(basis.sum(1), 1e-8)
    bins = np.arange(basis.shape[1])
    centres = basis @ bins / area
    matrix = np.stack([np.interp(bins, centres, row) for row in np.eye(len(area))])
    return torch.from_numpy(matrix).float(), torch.from_numpy(-np.log(area) @ matrix).float()


class SourceFilter(Vocoder):
    """Harmonic-plus-noise vocoder in the spectral domain.

    A ConvNeXt trunk reads mel, log F0 and voicing and gives, per frame and frequency, the magnitude and phase of the
    filter on the pulse train and the magnitude of the filter on the noise, on top of the envelope read off the mel.

    Args:
        mel: MelConfig.to_dict(); n_fft must be an even multiple of hop.
        dim, layers, expansion: size of the trunk.
        kernel, lookahead: frames a block's convolution sees, and how many of them are in the future.
        pitch_dim, pitch_layers, pitch_bins, pitch_low, pitch_high: size of the F0 estimator and its grid in Hz.
        teacher: share of the training clips whose source runs on the target F0 rather than on the estimate.
        seed: of the noise.
    Source: harmonic-plus-noise source and filters as in DDSP (Engel et al. 2020, arXiv:2001.04643), NSF (Wang et al.
    2019, arXiv:1904.12088) and HiFTNet (Li et al. 2023, arXiv:2309.09493); trunk and head as in Vocos.
    """

    kind = "source_filter"
    takes_f0 = True
    envelope: Tensor
    envelope_offset: Tensor
    window: Tensor

    def __init__(
        self,
        mel: dict[str, Any] | None = None,
        *,
        dim: int = 256,
        layers: int = 6,
        expansion: int = 3,
        kernel: int = 7,
        lookahead: int = 1,
        pitch_dim: int = 128,
        pitch_layers: int = 3,
        pitch_bins: int = 128,
        pitch_low: float = 50.0,
        pitch_high: float = 800.0,
        teacher: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.mel = MelConfig() if mel is None else MelConfig.from_dict(dict(mel))
        self.config = {
            "mel": self.mel.to_dict(),
            "dim": dim,
            "layers": layers,
            "expansion": expansion,
            "kernel": kernel,
            "lookahead": lookahead,
            "pitch_dim": pitch_dim,
            "pitch_layers": pitch_layers,
            "pitch_bins": pitch_bins,
            "pitch_low": pitch_low,
            "pitch_high": pitch_high,
            "teacher": teacher,
            "seed": seed,
        }
        if self.mel.n_fft % (2 * self.mel.hop):
            raise ValueError(
                f"source_filter: n_fft must be an even multiple of hop, got n_fft={self.mel.n_fft}, hop={self.mel.hop}"
            )
        self.overlap = self.mel.n_fft // self.mel.hop
        self.teacher, self.seed = teacher, seed
        bins = self.mel.n_fft // 2 + 1
        self.pitch = PitchEstimator(
            self.mel.n_mels, pitch_dim, pitch_layers, kernel, lookahead, pitch_bins, pitch_low, pitch_high
        )
        self.trunk = ConvNeXt(self.mel.n_mels + 2, dim, layers, kernel, lookahead, expansion)
        self.head = nn.Linear(dim, 3 * bins)
        nn.init.normal_(self.head.weight, std=0.1 * dim**-0.5)
        nn.init.zeros_(self.head.bias)
        window = torch.hann_window(self.mel.n_fft)
        matrix, offset = envelope_matrix(self.mel)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("envelope", matrix, persistent=False)
        # Noise of unit power has this magnitude in every bin of a windowed spectrum.
        self.register_buffer("envelope_offset", offset - 0.5 * window.square().sum().log(), persistent=False)

    def estimate_f0(self, mel: Tensor) -> Tensor:
        """(B, n_mels, T) log-mel → (B, T) Hz, 0 = unvoiced."""
        return self.pitch.decode(self.pitch(self._normalised(mel)))

    def generate(self, batch: VocoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Training form: audio (B, T * hop) that carries gradients, and the losses of the F0 estimator."""
        mel = self._normalised(batch.mel)
        logits = self.pitch(mel)
        losses = self.pitch.losses(logits, batch.f0)
        with torch.no_grad():
            taught = torch.rand(len(mel), 1, device=mel.device) < self.teacher
            f0 = torch.where(taught, batch.f0, self.pitch.decode(logits))
            count = mel.shape[1] + self.overlap - 1
            phase = torch.rand(len(mel), device=mel.device, dtype=torch.float64)
            pulses, _ = pulse_train(self._extended(f0), phase, self.mel.hop, self.mel.sample_rate)
            hiss = (torch.rand(len(mel), count, self.mel.hop, device=mel.device) - 0.5) * 12**0.5
        return self._finish(self._filtered(batch.mel, mel, f0, pulses, hiss)), losses

    def forward(self, mel: Tensor, f0: Tensor | None = None) -> Tensor:
        normalised = self._normalised(mel)
        if f0 is None:
            f0 = self.pitch.decode(self.pitch(normalised))
        phase = torch.zeros(len(mel), device=mel.device, dtype=torch.float64)
        pulses, _ = pulse_train(self._extended(f0), phase, self.mel.hop, self.mel.sample_rate)
        count = mel.shape[2] + self.overlap - 1
        hiss = noise(-self.overlap // 2, count, self.mel.hop, self.seed, mel.device).expand(len(mel), -1, -1)
        return self._finish(self._filtered(mel, normalised, f0, pulses, hiss)).clamp(-1, 1)

    def _normalised(self, mel: Tensor) -> Tensor:
        """(B, n_mels, T) → (B, T, n_mels) of about unit scale."""
        return (mel.transpose(1, 2) + 5) / 2

    def _extended(self, f0: Tensor) -> Tensor:
        """F0 held beyond both ends, as far as the windows of the outer frames reach."""
        return F.pad(f0.unsqueeze(1), (self.overlap // 2, self.overlap // 2), mode="replicate").squeeze(1)

    def _filtered(self, mel: Tensor, normalised: Tensor, f0: Tensor, pulses: Tensor, hiss: Tensor) -> Tensor:
        """Windowed output frames (B, T, n_fft) from T frames and the T + overlap - 1 intervals around them."""
        voiced = f0 > 0
        tone = torch.where(voiced, torch.log(f0.clamp(min=1.0) / 200.0), 0.0)
        features = torch.cat([normalised, tone[..., None], voiced[..., None].to(tone)], dim=2)
        filters = self.head(self.trunk(features)).float()
        harmonic, angle, noisy = filters.chunk(3, dim=2)
        with torch.autocast(mel.device.type, enabled=False):
            envelope = mel.float().transpose(1, 2) @ self.envelope + self.envelope_offset
        # 12 nats above the mel's envelope is beyond any filter; the bound keeps a bad frame from overflowing.
        harmonic, noisy = (torch.exp(envelope + part.clamp(max=12.0)) for part in (harmonic, noisy))
        with torch.no_grad():
            source = torch.fft.rfft(frames_of(torch.cat([pulses, hiss]), self.overlap) * self.window)
            pulse_spectrum, noise_spectrum = source.chunk(2)
        # torch.polar would say the same, at three times the cost of its gradient.
        rotated = torch.complex(harmonic * angle.cos(), harmonic * angle.sin())
        spectrum = rotated * pulse_spectrum + noisy * noise_spectrum
        return torch.fft.irfft(spectrum, n=self.mel.n_fft) * self.window

    def _finish(self, frames: Tensor) -> Tensor:
        """Overlap-add divided by the windows' own, cut to the T * hop samples that the frames stand for."""
        power = self.window.square().expand(1, frames.shape[1], -1)
        padding = self.mel.padding
        audio = overlap_add(frames, self.overlap).flatten(1)[:, padding:-padding]
        return audio / overlap_add(power, self.overlap).flatten(1)[:, padding:-padding]
