"""ConvNeXt trunk in (B, T, C): depthwise convolution with little look-ahead, then a two-layer network on each frame."""

from __future__ import annotations

from copy import deepcopy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.vocoders.tiles import TiledVocoder, inside


class FrameConv(nn.Module):
    """Full convolution over frames as one matrix product.

    Args:
        inputs, outputs: channels.
        kernel: frames seen, `lookahead` of them in the future.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, lookahead: int) -> None:
        super().__init__()
        self.kernel, self.lookahead = kernel, lookahead
        self.project = nn.Linear(inputs * kernel, outputs)

    def valid(self, x: Tensor) -> Tensor:
        """(B, T + kernel - 1, inputs) → (B, T, outputs)."""
        frames = x.shape[1] - self.kernel + 1
        return self.project(torch.cat([x[:, k : k + frames] for k in range(self.kernel)], dim=2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) → (B, T, outputs), zeros beyond both ends."""
        return self.valid(F.pad(x, (0, 0, self.kernel - 1 - self.lookahead, self.lookahead)))


class ConvNeXtBlock(nn.Module):
    """x + scale · W2 gelu(W1 norm(depthwise(x))).

    Source: Liu et al. 2022, arXiv:2201.03545, in one dimension as in Vocos (Siuzdak 2023, arXiv:2306.00814).
    """

    def __init__(self, dim: int, hidden: int, kernel: int, lookahead: int, scale: float) -> None:
        super().__init__()
        self.kernel, self.lookahead = kernel, lookahead
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def valid(self, x: Tensor) -> Tensor:
        """(B, T + kernel - 1, dim) → (B, T, dim)."""
        past = self.kernel - 1 - self.lookahead
        # A 2-D convolution on the transposed view keeps channels last: 4 times faster here than conv1d, which copies.
        view = x.transpose(1, 2).unsqueeze(2)
        mixed = F.conv2d(view, self.depthwise.weight.unsqueeze(2), self.depthwise.bias, groups=x.shape[2])
        update = self.contract(F.gelu(self.expand(self.norm(mixed.squeeze(2).transpose(1, 2)))))
        return torch.addcmul(x[:, past : x.shape[1] - self.lookahead], update, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) → (B, T, dim), zeros beyond both ends."""
        return self.valid(F.pad(x, (0, 0, self.kernel - 1 - self.lookahead, self.lookahead)))


class ConvNeXt(nn.Module):
    """Input convolution, blocks, final normalisation.

    Args:
        inputs: channels in.
        dim: channels out and between blocks.
        layers: blocks.
        kernel: frames each convolution sees.
        lookahead: future frames each block sees; the input convolution sees kernel // 2.
        expansion: hidden width of a block over dim.
    Attributes:
        lookahead: future frames an output depends on in all.
    """

    def __init__(self, inputs: int, dim: int, layers: int, kernel: int, lookahead: int, expansion: int = 3) -> None:
        super().__init__()
        if kernel < 1 or not 0 <= lookahead < kernel:
            raise ValueError(f"ConvNeXt: need 0 <= lookahead < kernel, got lookahead={lookahead}, kernel={kernel}")
        self.inputs, self.dim, self.kernel = inputs, dim, kernel
        self.lookahead = kernel // 2 + layers * lookahead
        self.embed = FrameConv(inputs, dim, kernel, kernel // 2)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(dim, expansion * dim, kernel, lookahead, 1.0 / layers) for _ in range(layers)
        )
        self.final_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) → (B, T, dim)."""
        kind = x.dtype
        x = self.norm(self.embed(x.to(self.dtype)))
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x).to(kind)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes, whatever it is given and gives back."""
        return self.embed.project.weight.dtype

    def initial(self, batch: int, like: Tensor) -> tuple[Tensor, ...]:
        """Caches of `step`: the last kernel - 1 inputs of every convolution, zeros before the beginning."""
        widths = [self.inputs, *[self.dim] * len(self.blocks)]
        return tuple(like.new_zeros(batch, self.kernel - 1, width, dtype=self.dtype) for width in widths)

    def step(
        self, x: Tensor, first: int, length: int | None, caches: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same function, a tile at a time, `lookahead` frames late.

        Args:
            x: (B, T, inputs) at positions first, first + 1, …; see `tiles.inside` for `length`.
        Returns: (B, T, dim) at positions from first - lookahead on, and the new caches.
        """
        moved, kind = [], x.dtype
        x = x.to(self.dtype)
        for cache, layer in zip(caches, [self.embed, *self.blocks], strict=True):
            x = torch.cat([cache, inside(x, first, length)], dim=1)
            moved.append(x[:, x.shape[1] - self.kernel + 1 :])
            x = layer.valid(x)  # type: ignore[operator]
            first -= layer.lookahead  # type: ignore[operator, assignment]
            if layer is self.embed:
                x = self.norm(x)
        return self.final_norm(x).to(kind), tuple(moved)


class TrunkVocoder(TiledVocoder):
    """A vocoder whose trunk, which is most of its work, can compute in bfloat16; head and spectra stay in float32.

    Attributes:
        trunk: from (B, T, ·) to (B, T, dim).
    """

    precisions = ("fp32", "bf16")
    trunk: ConvNeXt

    def for_inference(self, precision: str = "fp32") -> Self:
        """See `Vocoder.for_inference`."""
        exact = super().for_inference(precision)
        if precision == "fp32":
            return exact
        rounded = deepcopy(exact).requires_grad_(False)
        rounded.trunk.to(torch.bfloat16)
        return rounded
