"""Source-filter spectral head: filters a pulse train and noise frame by frame, with F0 estimated from the mel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.vocoders.consistency import MelConsistency, between_bands
from melstate.vocoders.convnext import ConvNeXt, TrunkVocoder
from melstate.vocoders.excitation import noise, pulse_train
from melstate.vocoders.f0 import PitchEstimator
from melstate.vocoders.mel import MelConfig, mel_basis
from melstate.vocoders.spectral import frames_of, overlap_add
from melstate.vocoders.tiles import inside
from melstate.vocoders.vocoder import VocoderBatch


def envelope_matrix(mel: MelConfig) -> tuple[Tensor, Tensor]:
    """The spectral envelope a mel frame already tells: log magnitude = log_mel @ matrix + offset.

    Band magnitudes, divided by the area of their filters, are interpolated linearly between band centres.

    Returns: matrix (n_mels, n_fft//2 + 1) and offset (n_fft//2 + 1,).
    """
    matrix = between_bands(mel)
    area = mel_basis(mel).double().sum(1).clamp(min=1e-8)
    return matrix, (-area.log() @ matrix.double()).float()


class SourceFilterCaches(NamedTuple):
    """What a tile leaves to the next.

    Attributes:
        pitch, trunk: of their convolutions.
        mel: (B, n, n_mels) frames that wait for F0 and trunk.
        f0: (B, 1) Hz of the last frame whose F0 is known.
        phase: (B,) float64 cycles there.
        source: (2, B, n, hop) intervals of pulses and noise that wait for the trunk.
        corrected: of each correction, (audio, tail): the (B, overlap - 1, hop) intervals that its next frames begin
            with and the sums that they will add to.
        tail: (B, overlap - 1, hop) sums that further frames will add to.
    """

    pitch: tuple[Tensor, ...]
    mel: Tensor
    f0: Tensor
    phase: Tensor
    source: Tensor
    trunk: tuple[Tensor, ...]
    corrected: tuple[tuple[Tensor, Tensor], ...]
    tail: Tensor


class SourceFilter(TrunkVocoder):
    """Harmonic-plus-noise vocoder in the spectral domain.

    A ConvNeXt trunk reads mel, log F0 and voicing and gives, per frame and frequency, the magnitude and phase of the
    filter on the pulse train and the magnitude of the filter on the noise, on top of the envelope read off the mel.

    Args:
        mel: MelConfig.to_dict(); n_fft must be an even multiple of hop.
        dim, layers, expansion: size of the trunk.
        kernel, lookahead: frames a block's convolution sees, and how many of them are in the future.
        pitch_dim, pitch_layers, pitch_bins, pitch_low, pitch_high: size of the F0 estimator and its grid in Hz.
        teacher: share of the training clips whose source runs on the target F0 rather than on the estimate.
        flat_noise: every frame of the noise keeps its phases but has one magnitude, so that the filter alone says how
            loud each frequency is; else the noise's own fluctuation comes on top of what a recording's mel tells.
        corrections: steps of `MelConsistency` after the filters; each looks overlap - 1 frames further ahead. Trained
            weights speak with any number of them, best with the one of their training.
        seed: of the noise.
    Source: harmonic-plus-noise source and filters as in DDSP (Engel et al. 2020, arXiv:2001.04643), NSF (Wang et al.
    2019, arXiv:1904.12088) and HiFTNet (Li et al. 2023, arXiv:2309.09493); trunk and head as in Vocos.
    """

    kind = "source_filter"
    takes_f0 = True
    tile = 128
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
        flat_noise: bool = False,
        corrections: int = 0,
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
            "flat_noise": flat_noise,
            "corrections": corrections,
            "seed": seed,
        }
        if self.mel.n_fft % (2 * self.mel.hop) or self.mel.hop % 2:
            raise ValueError(
                f"source_filter: n_fft must be an even multiple of an even hop, got n_fft={self.mel.n_fft}, "
                f"hop={self.mel.hop}"
            )
        self.overlap = self.mel.n_fft // self.mel.hop
        ahead = kernel // 2 + layers * lookahead
        if ahead < self.overlap // 2:
            raise ValueError(
                f"source_filter: the trunk looks {ahead} frames ahead, its source {self.overlap // 2}; raise kernel or "
                "lookahead"
            )
        if not 0 <= corrections <= 16:
            raise ValueError(f"source_filter: corrections must be in 0..16, got {corrections}")
        self.teacher, self.flat_noise, self.corrections, self.seed = teacher, flat_noise, corrections, seed
        bins = self.mel.n_fft // 2 + 1
        self.pitch = PitchEstimator(
            self.mel.n_mels, pitch_dim, pitch_layers, kernel, lookahead, pitch_bins, pitch_low, pitch_high
        )
        self.trunk = ConvNeXt(self.mel.n_mels + 2, dim, layers, kernel, lookahead, expansion)
        self.head = nn.Linear(dim, 3 * bins)
        nn.init.normal_(self.head.weight, std=0.1 * dim**-0.5)
        nn.init.zeros_(self.head.bias)
        self.consistency = MelConsistency(self.mel)
        window = torch.hann_window(self.mel.n_fft)
        matrix, offset = envelope_matrix(self.mel)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("envelope", matrix, persistent=False)
        # Noise of unit power has this magnitude in every bin of a windowed spectrum.
        self.register_buffer("envelope_offset", offset - 0.5 * window.square().sum().log(), persistent=False)

    def estimate_f0(self, mel: Tensor) -> Tensor:
        """(B, n_mels, T) log-mel → (B, T) Hz, 0 = unvoiced."""
        return self.pitch.decode(self.pitch(_scaled(mel.transpose(1, 2))))

    def generate(self, batch: VocoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Training form: audio (B, T * hop) that carries gradients, and the losses of the F0 estimator."""
        mel = batch.mel.transpose(1, 2)
        frames, reach = mel.shape[1], self.overlap // 2
        logits = self.pitch(_scaled(mel))
        losses = self.pitch.losses(logits, batch.f0)
        with torch.no_grad():
            taught = torch.rand(len(mel), 1, device=mel.device) < self.teacher
            f0 = torch.where(taught, batch.f0, self.pitch.decode(logits))
            phase = torch.rand(len(mel), device=mel.device, dtype=torch.float64)
            around = F.pad(f0.unsqueeze(1), (reach, reach), mode="replicate").squeeze(1)
            pulses, _ = pulse_train(around, phase, self.mel.hop, self.mel.sample_rate)
            hiss = (torch.rand_like(pulses) - 0.5) * 12**0.5
        windows = self._windows(mel, self.trunk(_features(mel, f0)), pulses, hiss)
        power = self._power(0, frames + self.overlap - 1, frames)
        audio = overlap_add(windows, self.overlap) / power
        for _ in range(self.corrections):
            audio = overlap_add(self.consistency.windows(audio, mel, self.window), self.overlap) / power
        return audio.flatten(1)[:, self.mel.padding : -self.mel.padding], losses

    def delay(self, channels: int) -> int:
        lag = 0 if channels > self.mel.n_mels else self.pitch.trunk.lookahead
        ahead = lag + self.trunk.lookahead + self.corrections * (self.overlap - 1) + self.overlap // 2
        return ahead * self.mel.hop - self.mel.hop // 2

    def initial(self, frames: Tensor) -> SourceFilterCaches:
        batch, channels, _ = frames.shape
        given = channels > self.mel.n_mels
        lag = 0 if given else self.pitch.trunk.lookahead
        ahead = self.trunk.lookahead - self.overlap // 2
        late = self.corrections * (self.overlap - 1)
        nothing = frames.new_zeros(batch, self.overlap - 1, self.mel.hop)
        return SourceFilterCaches(
            pitch=() if given else self.pitch.trunk.initial(batch, frames),
            mel=frames.new_zeros(batch, lag + self.trunk.lookahead + late, self.mel.n_mels),
            f0=frames.new_zeros(batch, 1),
            phase=torch.zeros(batch, device=frames.device, dtype=torch.float64),
            source=frames.new_zeros(2, batch, self.overlap - 1 + ahead, self.mel.hop),
            trunk=self.trunk.initial(batch, frames),
            corrected=((nothing, nothing),) * self.corrections,
            tail=nothing,
        )

    def step(
        self, frames: Tensor, position: int, length: int | None, caches: SourceFilterCaches
    ) -> tuple[Tensor, SourceFilterCaches]:
        bands, hop, tile = self.mel.n_mels, self.mel.hop, frames.shape[2]
        late = self.corrections * (self.overlap - 1)
        mel = torch.cat([caches.mel, frames[:, :bands].transpose(1, 2)], dim=1)
        # `first` is the position of the first row at hand: of F0, then, later by the trunk's look-ahead, of its output.
        pitch: tuple[Tensor, ...] = ()
        if frames.shape[1] > bands:
            first, f0 = position, frames[:, bands]
        else:
            first = position - self.pitch.trunk.lookahead
            hidden, pitch = self.pitch.trunk.step(_scaled(mel[:, -tile:]), position, length, caches.pitch)
            f0 = self.pitch.decode(self.pitch.logits(hidden))
        f0 = _held(f0, caches.f0, first, length)
        before = f0[:, :1] if position == 0 else caches.f0
        # Intervals end at a frame whose F0 is known, so they begin one frame before `first`.
        pulses, phase = pulse_train(torch.cat([before, f0], dim=1), caches.phase, hop, self.mel.sample_rate)
        hiss = noise(first - 1, tile, hop, self.seed, frames.device).to(pulses).expand_as(pulses)
        source = torch.cat([caches.source, torch.stack([pulses, hiss])], dim=2)
        heard = late + self.trunk.lookahead
        features = _features(mel[:, heard : heard + tile], f0)
        hidden, trunk = self.trunk.step(features, first, length, caches.trunk)
        first -= self.trunk.lookahead
        pulses, hiss = source[:, :, : tile + self.overlap - 1]
        windows = self._windows(mel[:, late : late + tile], hidden, pulses, hiss)
        audio, tail = self._added(windows, first, length, caches.tail)
        corrected = []
        for held, sums in caches.corrected:
            intervals = torch.cat([held, audio], dim=1)
            first, late = first - self.overlap + 1, late - self.overlap + 1
            windows = self.consistency.windows(intervals, mel[:, late : late + tile], self.window)
            audio, sums = self._added(windows, first, length, sums)
            corrected.append((intervals[:, tile:], sums))
        moved = SourceFilterCaches(
            pitch=pitch,
            mel=mel[:, tile:],
            f0=f0[:, -1:],
            phase=phase,
            source=source[:, :, tile:],
            trunk=trunk,
            corrected=tuple(corrected),
            tail=tail,
        )
        return audio.flatten(1).clamp(-1, 1), moved

    def _windows(self, mel: Tensor, hidden: Tensor, pulses: Tensor, hiss: Tensor) -> Tensor:
        """Windowed output frames.

        Args:
            mel: (B, T, n_mels) log-mel.
            hidden: (B, T, dim) of the trunk.
            pulses, hiss: (B, T + overlap - 1, hop) intervals from overlap / 2 before the first frame on.
        Returns: (B, T, n_fft).
        """
        harmonic, angle, noisy = self.head(hidden).float().chunk(3, dim=2)
        with torch.autocast(mel.device.type, enabled=False):
            envelope = mel.float() @ self.envelope + self.envelope_offset
        # Speech stays below a gain of e⁴; the bound keeps a bad frame from overflowing.
        harmonic, noisy = (torch.exp((envelope + part).clamp(max=12.0)) for part in (harmonic, noisy))
        with torch.no_grad():
            source = torch.fft.rfft(frames_of(torch.cat([pulses, hiss]), self.overlap) * self.window)
            pulse_spectrum, noise_spectrum = source.chunk(2)
            if self.flat_noise:
                power = noise_spectrum.real.square() + noise_spectrum.imag.square()
                noise_spectrum = noise_spectrum * (self.window.square().sum() / power.clamp(min=1e-9)).sqrt()
        # torch.polar would say the same, at three times the cost of its gradient.
        rotated = torch.complex(harmonic * angle.cos(), harmonic * angle.sin())
        spectrum = rotated * pulse_spectrum + noisy * noise_spectrum
        return torch.fft.irfft(spectrum, n=self.mel.n_fft) * self.window

    def _added(self, windows: Tensor, first: int, length: int | None, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Windowed frames from position first on → the intervals (B, T, hop) that they end, and the sums left over."""
        total = overlap_add(inside(windows, first, length), self.overlap)
        total[:, : self.overlap - 1] += tail
        done = windows.shape[1]
        return total[:, :done] / self._power(first, done, length), total[:, done:]

    def _power(self, first: int, intervals: int, length: int | None) -> Tensor:
        """Squared windows that frames 0..length-1 lay over the intervals from first - overlap / 2 on.

        The division by it undoes analysis and synthesis windows, at the edges too. (intervals, hop), never zero.
        """
        frame = first + torch.arange(intervals, device=self.window.device)[:, None]
        frame = frame - torch.arange(self.overlap, device=self.window.device)
        real = (frame >= 0) if length is None else (frame >= 0) & (frame < length)
        return (real.to(self.window) @ self.window.square().view(self.overlap, -1)).clamp(min=1e-3)


def _scaled(mel: Tensor) -> Tensor:
    """Log-mel brought to about unit scale, and kept there whatever the input."""
    return ((mel + 5) / 2).clamp(-10, 10)


def _features(mel: Tensor, f0: Tensor) -> Tensor:
    """What the trunk reads: (B, T, n_mels) and (B, T) → (B, T, n_mels + 2)."""
    voiced = f0 > 0
    tone = torch.where(voiced, torch.log(f0.clamp(min=1.0) / 200.0), 0.0)
    return torch.cat([_scaled(mel), tone[..., None], voiced[..., None].to(tone)], dim=2)


def _held(f0: Tensor, last: Tensor, first: int, length: int | None) -> Tensor:
    """f0 (B, T) at positions first, first + 1, … with the utterance's end values beyond its ends.

    Args:
        last: (B, 1) value at first - 1.
    """
    if length is not None and length <= first:
        return last.expand_as(f0)
    columns = torch.arange(first, first + f0.shape[1], device=f0.device)
    return f0[:, columns.clamp(0, None if length is None else length - 1) - first]
