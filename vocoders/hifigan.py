"""HiFi-GAN generators, and iSTFTNet, which replaces their last stages by an inverse STFT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from melstate.vocoders.convolutional import ConvolutionalVocoder
from melstate.vocoders.istft import InverseSTFT, ReflectOne
from melstate.vocoders.layers import Chain, Conv, Layer, Mean, Residual, Tanh, Up

V1: dict[str, Any] = {}
V2: dict[str, Any] = {"channels": 128}
V3: dict[str, Any] = {
    "channels": 256,
    "strides": (8, 8, 4),
    "kernels": (3, 5, 7),
    "dilations": ((1, 2), (2, 6), (3, 12)),
    "paired": False,
}


def trunk(
    channels: int, strides: Sequence[int], kernels: Sequence[int], dilations: Sequence[Sequence[int]], paired: bool
) -> tuple[list[Layer], int]:
    """Upsampling stages, each with the mean of its residual branches; and the channels they end with."""
    layers: list[Layer] = []
    for stride in strides:
        layers.append(Up(channels, channels // 2, stride, 0.1))
        channels //= 2
        branches = []
        for kernel, steps in zip(kernels, dilations, strict=True):
            blocks = []
            for dilation in steps:
                convs = [Conv(channels, channels, kernel, dilation, slope=0.1)]
                if paired:
                    convs.append(Conv(channels, channels, kernel, slope=0.1))
                blocks.append(Residual(Chain(convs)))
            branches.append(Chain(blocks))
        layers.append(Mean(branches, channels))
    return layers, channels


class HiFiGAN(ConvolutionalVocoder):
    """The published generator's arithmetic; the defaults are V1.

    Args:
        mel: MelConfig.to_dict(); the strides' product must be its hop.
        channels: after the first convolution; halved at every stage.
        strides: of the upsampling convolutions, whose kernels are twice that.
        kernels, dilations: of the residual branches of every stage.
        paired: each dilated convolution is followed by a plain one (ResBlock1 of the paper; False is ResBlock2).
        weight_norm: normalise weights, for training.
    Source: Kong et al. 2020, arXiv:2010.05646.
    """

    kind = "hifigan"
    full_precision = 4  # the last stage, and what follows

    def __init__(
        self,
        mel: dict[str, Any] | None = None,
        *,
        channels: int = 512,
        strides: Sequence[int] = (8, 8, 2, 2),
        kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        paired: bool = True,
        weight_norm: bool = True,
    ) -> None:
        super().__init__(
            mel,
            strides,
            1,
            channels=channels,
            kernels=list(kernels),
            dilations=[list(steps) for steps in dilations],
            paired=paired,
            weight_norm=weight_norm,
        )
        stages, last = trunk(channels, strides, kernels, dilations, paired)
        # The published code leaves the slope of the last activation at PyTorch's default.
        self.assemble([Conv(self.mel.n_mels, channels, 7), *stages, Conv(last, 1, 7, slope=0.01), Tanh()])


class ISTFTNet(ConvolutionalVocoder):
    """HiFi-GAN's first stages, then magnitude and phase of a short inverse STFT; the defaults are C8C8I.

    Args:
        n_fft, stft_hop: of the inverse STFT; the strides' product times stft_hop must be the mel's hop.
        mel, channels, strides, kernels, dilations, paired, weight_norm: as HiFiGAN.
    Source: Kaneko et al. 2022, arXiv:2203.02395.
    """

    kind = "istftnet"
    full_precision = 3

    def __init__(
        self,
        mel: dict[str, Any] | None = None,
        *,
        channels: int = 512,
        strides: Sequence[int] = (8, 8),
        kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        paired: bool = True,
        n_fft: int = 16,
        stft_hop: int = 4,
        weight_norm: bool = True,
    ) -> None:
        super().__init__(
            mel,
            strides,
            stft_hop,
            channels=channels,
            kernels=list(kernels),
            dilations=[list(steps) for steps in dilations],
            paired=paired,
            n_fft=n_fft,
            stft_hop=stft_hop,
            weight_norm=weight_norm,
        )
        stages, last = trunk(channels, strides, kernels, dilations, paired)
        self.assemble(
            [
                Conv(self.mel.n_mels, channels, 7),
                *stages,
                ReflectOne(last),
                Conv(last, n_fft + 2, 7, slope=0.01),
                InverseSTFT(n_fft, stft_hop, n_fft // 2, torch.sin),
            ]
        )
