"""MelGAN generators, full-band and multi-band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from melstate.vocoders.convolutional import ConvolutionalVocoder
from melstate.vocoders.layers import Chain, Conv, Layer, Residual, Tanh, Up
from melstate.vocoders.losses import stft_loss
from melstate.vocoders.pqmf import PQMF
from melstate.vocoders.spectral import magnitudes
from melstate.vocoders.vocoder import VocoderBatch

BAND_RESOLUTIONS = (512, 256, 128)  # at a quarter of the rate


def _stack(channels: int, kernel: int, dilation: int) -> Residual:
    body = [Conv(channels, channels, kernel, dilation, 0.2, "reflect"), Conv(channels, channels, 1, slope=0.2)]
    return Residual(Chain(body), Conv(channels, channels, 1))


class MelGAN(ConvolutionalVocoder):
    """The published generator's arithmetic, on natural-log mels; with bands > 1, Multi-band MelGAN.

    Args:
        mel: MelConfig.to_dict(); strides' product times bands must be its hop. The published weights want fmax 11025.
        channels: after the first convolution; halved at every stage.
        strides: of the upsampling convolutions, whose kernels are twice that.
        stacks: residual blocks a stage, of dilations 1, 3, 9, …
        bands: sub-bands put together by a PQMF.
        weight_norm: normalise weights, for training.
    Source: Kumar et al. 2019, arXiv:1910.06711; Yang et al. 2020, arXiv:2005.05106.
    """

    kind = "melgan"

    def __init__(
        self,
        mel: dict[str, Any] | None = None,
        *,
        channels: int = 512,
        strides: Sequence[int] = (8, 8, 2, 2),
        stacks: int = 3,
        bands: int = 1,
        weight_norm: bool = True,
    ) -> None:
        super().__init__(mel, strides, bands, channels=channels, stacks=stacks, bands=bands, weight_norm=weight_norm)
        layers: list[Layer] = [Conv(self.mel.n_mels, channels, 7, border="reflect")]
        for stride in strides:
            layers.append(Up(channels, channels // 2, stride, 0.2))
            channels //= 2
            layers += [_stack(channels, 3, 3**number) for number in range(stacks)]
        layers += [Conv(channels, bands, 7, slope=0.2, border="reflect"), Tanh()]
        self.full_precision = 1 + stacks + 2  # the last stage, and what follows
        if bands > 1:
            layers.append(PQMF(bands))
            self.full_precision += 1
        self.assemble(layers)

    @property
    def pqmf(self) -> PQMF | None:
        """The filter bank of the multi-band form."""
        last = list(self.chain)[-1]
        return last if isinstance(last, PQMF) else None

    def generate(self, batch: VocoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Vocoder.generate`; the multi-band form adds `bands`, the STFT loss of its sub-bands."""
        if self.pqmf is None:
            return super().generate(batch)
        x = batch.mel.transpose(1, 2)
        for layer in list(self.chain)[:-1]:
            x = layer(x)
        fake, real = (bands.transpose(1, 2).flatten(0, 1) for bands in (x.float(), self.pqmf.analysis(batch.audio)))
        losses = []
        for n_fft in BAND_RESOLUTIONS:
            window = torch.hann_window(n_fft, device=x.device)
            losses.append(stft_loss(magnitudes(fake, window, n_fft // 4), magnitudes(real, window, n_fft // 4)))
        return self.pqmf(x).squeeze(2), {"bands": torch.stack(losses).mean()}
