"""Discriminators: audio in, logits and activations out; all channel counts are arguments, because they are the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class Verdict(NamedTuple):
    """Attributes: logits: (B, …), high = real; activations: of every layer, for the feature loss."""

    logits: Tensor
    activations: list[Tensor]


class PeriodDiscriminator(nn.Module):
    """2-D convolutions over audio folded into rows of `period` samples.

    Source: Kong et al. 2020, arXiv:2010.05646, section 2.3.
    """

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(i, o, (5, 1), (stride, 1), padding=(2, 0)))
            for i, o, stride in zip((1, *channels), channels, strides, strict=False)
        )
        self.post = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Tensor) -> Verdict:
        """(B, samples) → Verdict."""
        x = audio.unsqueeze(1)
        if short := -x.shape[2] % self.period:
            x = F.pad(x, (0, short), mode="reflect")
        x = x.unflatten(2, (-1, self.period))
        activations = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            activations.append(x)
        x = self.post(x)
        return Verdict(x.flatten(1), [*activations, x])


class MultiPeriod(nn.Module):
    """HiFi-GAN's multi-period discriminator.

    Args:
        periods: samples a row.
        channels: of the convolutions; the paper's are 32, 128, 512, 1024, 1024, a quarter of which trains on two cores.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        channels: Sequence[int] = (32, 128, 512, 1024, 1024),
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, tuple(channels)) for period in periods)

    def forward(self, audio: Tensor) -> list[Verdict]:
        """(B, samples) → one Verdict a period."""
        return [part(audio) for part in self.parts]


class ResolutionDiscriminator(nn.Module):
    """2-D convolutions over each of five frequency bands of a complex spectrogram.

    Source: Kumar et al. 2023 (DAC), arXiv:2306.06546, section 3.3, as used by Vocos.
    """

    edges = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, n_fft // 4
        bins = n_fft // 2 + 1
        cuts = [int(edge * bins) for edge in self.edges]
        self.bands = list(zip(cuts, cuts[1:], strict=False))
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        shapes = [(2, (3, 9), (1, 1)), *[(channels, (3, 9), (1, 2))] * 3, (channels, (3, 3), (1, 1))]
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                weight_norm(nn.Conv2d(i, channels, kernel, stride, padding=(kernel[0] // 2, kernel[1] // 2)))
                for i, kernel, stride in shapes
            )
            for _ in self.bands
        )
        self.post = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=1))

    def forward(self, audio: Tensor) -> Verdict:
        """(B, samples) → Verdict."""
        # Level is no clue to what is real: remove the mean, bring the peak to 0.8.
        audio = audio.float() - audio.float().mean(1, keepdim=True)
        audio = 0.8 * audio / (audio.abs().amax(1, keepdim=True) + 1e-9)
        spectrum = torch.stft(audio, self.n_fft, self.hop, window=self.window, return_complex=True)
        image = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
        activations, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = image[..., low:high]
            for conv in stack:  # type: ignore[union-attr, attr-defined]
                x = F.leaky_relu(conv(x), 0.1)
                activations.append(x)
            ends.append(x)
        x = self.post(torch.cat(ends, dim=3))
        return Verdict(x.flatten(1), [*activations, x])


class MultiResolution(nn.Module):
    """Multi-band multi-resolution spectrogram discriminator.

    Args:
        resolutions: FFT lengths; the hop is a quarter.
        channels: of every convolution; Vocos has 32, two cores can train 16.
    """

    def __init__(self, resolutions: Sequence[int] = (2048, 1024, 512), channels: int = 32) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ResolutionDiscriminator(n_fft, channels) for n_fft in resolutions)

    def forward(self, audio: Tensor) -> list[Verdict]:
        """(B, samples) → one Verdict a resolution."""
        return [part(audio) for part in self.parts]


class ScaleDiscriminator(nn.Module):
    """1-D grouped convolutions over the waveform.

    Args:
        shapes: (channels out, kernel, stride, groups) of every convolution.
        slope: of the leaky ReLUs.
        norm: weight or spectral normalisation.
        border: "zeros" or "reflect", of the first convolution.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int, int, int]],
        slope: float,
        norm: Callable[[nn.Module], nn.Module] = weight_norm,
        border: Literal["zeros", "reflect"] = "zeros",
    ) -> None:
        super().__init__()
        self.slope = slope
        self.convs = nn.ModuleList()
        inputs = 1
        for number, (outputs, kernel, stride, groups) in enumerate(shapes):
            mode: Literal["zeros", "reflect"] = border if number == 0 else "zeros"
            conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, padding_mode=mode)
            self.convs.append(norm(conv))
            inputs = outputs
        self.post = norm(nn.Conv1d(inputs, 1, 3, padding=1))

    def forward(self, audio: Tensor) -> Verdict:
        """(B, samples) → Verdict."""
        x, activations = audio.unsqueeze(1), []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.slope)
            activations.append(x)
        x = self.post(x)
        return Verdict(x.flatten(1), [*activations, x])


class MultiScale(nn.Module):
    """HiFi-GAN's multi-scale discriminator: the waveform, and averaged by 2 and by 4.

    Args:
        width: divides every channel count; 1 is the paper's.
    Source: Kong et al. 2020, arXiv:2010.05646, section 2.3.
    """

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        full = [
            (128, 15, 1, 1),
            (128, 41, 2, 4),
            (256, 41, 2, 16),
            (512, 41, 4, 16),
            (1024, 41, 4, 16),
            (1024, 41, 1, 16),
            (1024, 5, 1, 1),
        ]
        shapes = [(c // width, kernel, stride, max(1, groups // width)) for c, kernel, stride, groups in full]
        self.parts = nn.ModuleList(
            ScaleDiscriminator(shapes, 0.1, spectral_norm if number == 0 else weight_norm) for number in range(3)
        )

    def forward(self, audio: Tensor) -> list[Verdict]:
        """(B, samples) → one Verdict a scale."""
        verdicts = []
        for number, part in enumerate(self.parts):
            if number:
                audio = F.avg_pool1d(audio.unsqueeze(1), 4, 2, padding=2).squeeze(1)
            verdicts.append(part(audio))
        return verdicts


class MelGANScales(nn.Module):
    """MelGAN's discriminator: three scales of a window-based one; hinge loss.

    Args:
        channels: after the first convolution; four times as many after each strided one, up to 1024.
        scales: waveforms, each averaged by 2 from the one before.
    Source: Kumar et al. 2019, arXiv:1910.06711, section 2.2.
    """

    def __init__(self, channels: int = 16, scales: int = 3) -> None:
        super().__init__()
        shapes, width = [(channels, 15, 1, 1)], channels
        for _ in range(4):
            shapes.append((min(1024, 4 * width), 41, 4, max(1, width // 4)))
            width = min(1024, 4 * width)
        shapes.append((width, 5, 1, 1))
        self.parts = nn.ModuleList(ScaleDiscriminator(shapes, 0.2, border="reflect") for _ in range(scales))

    def forward(self, audio: Tensor) -> list[Verdict]:
        """(B, samples) → one Verdict a scale."""
        verdicts = []
        for number, part in enumerate(self.parts):
            if number:
                audio = F.avg_pool1d(audio.unsqueeze(1), 4, 2, padding=1, count_include_pad=False).squeeze(1)
            verdicts.append(part(audio))
        return verdicts
