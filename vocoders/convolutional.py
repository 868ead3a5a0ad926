"""What the convolutional generators share: a chain of layers from mel frames to samples, run whole or in tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from melstate.vocoders.layers import Chain, Layer, Span, add_weight_norm, weighted
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.tiles import TiledVocoder
from melstate.vocoders.vocoder import VocoderBatch


class ConvolutionalVocoder(TiledVocoder):
    """`chain` maps (B, T, n_mels) to (B, T * hop, 1).

    Args:
        mel: MelConfig.to_dict(); None is the default.
        strides: of the upsampling layers.
        rate: samples that what follows them makes of a row; with the strides, a hop.
        config: the subclass' other arguments, `weight_norm` among them.
    Raises: ValueError: strides and rate do not make a hop of samples out of a frame.
    Attributes:
        chain: the layers, in order.
        full_precision: the last layers, which `for_inference(precision="bf16")` leaves in float32.
    """

    precisions = ("fp32", "bf16")

    chain: Chain
    full_precision: int = 1
    tile = 64

    def __init__(self, mel: dict[str, Any] | None, strides: Sequence[int], rate: int, **config: Any) -> None:
        super().__init__()
        self.mel = MelConfig() if mel is None else MelConfig.from_dict(dict(mel))
        self.config = {"mel": self.mel.to_dict(), "strides": list(strides), **config}
        if (samples := rate * prod(strides)) != self.mel.hop:
            raise ValueError(
                f"{self.kind}: a frame becomes {samples} samples (strides {list(strides)}), the mel's hop is "
                f"{self.mel.hop}"
            )

    def assemble(self, layers: Iterable[Layer]) -> None:
        """Make them the chain, with weight normalisation if it was asked for."""
        self.chain = Chain(layers)
        if self.config["weight_norm"]:
            add_weight_norm(self)

    def generate(self, batch: VocoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.chain(batch.mel.transpose(1, 2)).squeeze(2), {}

    def delay(self, channels: int) -> int:
        return self.chain.delay

    def initial(self, frames: Tensor) -> Any:
        return self.chain.initial(len(frames), frames)

    def step(self, frames: Tensor, position: int, length: int | None, caches: Any) -> tuple[Tensor, Any]:
        audio, _, moved = self.chain.step(frames.transpose(1, 2), Span(position, length), caches)
        return audio.squeeze(2), moved

    def stream(self, *args: Any, **options: Any) -> Any:
        with parametrize.cached():  # a normalised weight is computed once a call, not once a tile
            return super().stream(*args, **options)

    def for_inference(self, precision: str = "fp32") -> Self:
        """See `Vocoder.for_inference`: a copy, weight normalisation fused and weights packed for the CPU."""
        super().for_inference(precision)
        # Built anew: a deep copy would share the class that holds the parametrised weights, and lose it for both.
        fused = type(self)(**{**self.config, "weight_norm": False})
        with torch.no_grad():
            for source, target in zip(weighted(self), weighted(fused), strict=True):
                target.weight.copy_(source.weight)
                target.bias.copy_(source.bias)
        fused.to(next(self.parameters()).device).eval().requires_grad_(False)
        fused.tile = self.tile
        if precision == "bf16":
            # A rounded mel alone is an error of 0.03 of a log magnitude: the first layer takes it as it is.
            for layer in list(fused.chain)[1 : -self.full_precision]:
                layer.to(torch.bfloat16)
        for layer in weighted(fused):
            layer.pack()
        return fused
