"""Layers that run whole or in tiles with the same result: convolutions, upsampling, residuals, parallel branches.

Activations are (B, T, C): convolutions see them as channels-last images of height 1, which is several times faster on a
CPU than Conv1d. `forward` is the definition, borders included. `step` is the same function a tile at a time: causal, so
that it gives its output late by the layer's look-ahead, with what it needs of the past in a cache.

For inference, `pack` lays weights out once as they are used, which otherwise happens at every call. A layer with
bfloat16 weights rounds its input; sums of layers, and what waits for them, keep the type of what comes in, so that
rounding does not pile up along a chain of residuals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

# Up to this many numbers PyTorch leaves a convolution to a loop of its own rather than to oneDNN; one matrix product
# over the shifted rows is faster there.
SMALL = 20480


class Span(NamedTuple):
    """Where a tile lies.

    Attributes:
        first: position of its first row, negative before the beginning.
        length: rows of the whole sequence; None while unknown.
    """

    first: int
    length: int | None

    def earlier(self, rows: int) -> Span:
        return Span(self.first - rows, self.length)

    def times(self, rate: int) -> Span:
        return Span(self.first * rate, None if self.length is None else self.length * rate)


def bordered(x: Tensor, span: Span, border: str) -> Tensor:
    """x (B, T, C) with the rows outside the sequence zero, or mirrored as far as the tile reaches."""
    rows = x.shape[1]
    before = min(max(-span.first, 0), rows)
    after = rows if span.length is None else min(max(span.length - span.first, 0), rows)
    if before == 0 and after == rows:
        return x
    if border == "reflect":
        positions = torch.arange(span.first, span.first + rows, device=x.device).abs()
        if span.length is not None:
            positions = span.length - 1 - (span.length - 1 - positions).abs()
        return x[:, (positions - span.first).clamp(0, rows - 1)]
    x = x.clone()
    x[:, :before] = 0
    x[:, after:] = 0
    return x


class Layer(nn.Module):
    """A function of rows that `forward` computes whole and `step` in tiles."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) → (B, T * rate, outputs)."""
        raise NotImplementedError

    def place(self, span: Span) -> Span:
        """Where `step` puts its output for an input at `span`."""
        return span

    def initial(self, batch: int, like: Tensor) -> Any:
        """Cache before the first tile, on the device of `like`."""
        raise NotImplementedError

    @property
    def delay(self) -> int:
        """Rows (of the output) by which `step` is late."""
        return -self.place(Span(0, None)).first

    def step(self, x: Tensor, span: Span, cache: Any) -> tuple[Tensor, Span, Any]:
        """A tile at `span` → its output, where that lies, and the cache for the next tile."""
        raise NotImplementedError


class Weighted(Layer):
    """A layer with a weight and a bias, which can be packed for inference."""

    _packed: Any = None

    def pack(self) -> None:
        """Lay the weights out for fast steps. Later changes of them are not seen; moving or casting undoes it."""
        raise NotImplementedError

    def _apply(self, *args: Any, **options: Any) -> Any:
        self._packed = None
        return super()._apply(*args, **options)


class Conv(Weighted):
    """Leaky ReLU (if `slope`) and a convolution of odd kernel, as long as its input.

    Args:
        border: what lies beyond the ends, "zero" or "reflect".
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        dilation: int = 1,
        slope: float | None = None,
        border: str = "zero",
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"convolutions need an odd kernel, got {kernel}")
        self.inputs, self.dilation, self.slope, self.border = inputs, dilation, slope, border
        self.reach = (kernel - 1) * dilation
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        _initialise(self.weight, self.bias, inputs * kernel)

    def pack(self) -> None:
        if self.weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.detach().unsqueeze(2), dilation=[1, self.dilation]
            )

    def _activated(self, x: Tensor) -> Tensor:
        return x if self.slope is None else F.leaky_relu(x, self.slope)

    def _valid(self, x: Tensor) -> Tensor:
        if x.numel() <= SMALL:
            rows, kernel = x.shape[1] - self.reach, self.weight.shape[2]
            shifted = torch.cat([x[:, k * self.dilation :][:, :rows] for k in range(kernel)], dim=2)
            return F.linear(shifted, self.weight.transpose(1, 2).flatten(1), self.bias)
        view, dilation = x.transpose(1, 2).unsqueeze(2), [1, self.dilation]
        if self._packed is None:
            y = F.conv2d(view, self.weight.unsqueeze(2), self.bias, dilation=dilation)
        else:
            still: Any = (
                [0, 0],
                [1, 1],
                dilation,
                1,
                "none",
                [],
                "",
            )  # no padding, no stride, one group, nothing after
            y = torch.ops.mkldnn._convolution_pointwise(view, self._packed, self.bias, *still)
        return y.squeeze(2).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self._activated(x.to(self.weight.dtype))
        half = self.reach // 2
        if self.border == "reflect" and half:
            x = F.pad(x.transpose(1, 2), (half, half), mode="reflect").transpose(1, 2).contiguous()
        else:
            x = F.pad(x, (0, 0, half, half))
        return self._valid(x)

    def place(self, span: Span) -> Span:
        return span.earlier(self.reach // 2)

    def initial(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, self.reach, self.inputs, dtype=self.weight.dtype)

    def step(self, x: Tensor, span: Span, cache: Tensor) -> tuple[Tensor, Span, Tensor]:
        # The cache holds activated rows: zeroing and mirroring rows does not mind in which order it comes.
        seen = cache.new_empty(len(x), self.reach + x.shape[1], self.inputs)
        seen[:, : self.reach] = cache
        if self.slope is None:
            seen[:, self.reach :] = x
        else:
            torch.ops.aten.leaky_relu.out(x.to(cache.dtype), self.slope, out=seen[:, self.reach :])
        moved = seen[:, x.shape[1] :]
        return self._valid(bordered(seen, span.earlier(self.reach), self.border)), self.place(span), moved


class Up(Weighted):
    """Leaky ReLU and a transposed convolution of kernel 2 · stride, cut to stride · T rows.

    Written as one matrix product on each pair of neighbouring rows.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, slope: float) -> None:
        super().__init__()
        if stride % 2:
            raise ValueError(f"upsampling strides must be even, got {stride}")
        self.inputs, self.outputs, self.stride, self.slope = inputs, outputs, stride, slope
        self.weight = nn.Parameter(torch.empty(inputs, outputs, 2 * stride))
        self.bias = nn.Parameter(torch.empty(outputs))
        _initialise(self.weight, self.bias, 2 * inputs)

    def pack(self) -> None:
        self._packed = self._product()

    def _product(self) -> tuple[Tensor, Tensor]:
        """Matrix (stride * outputs, 2 * inputs) and bias (stride * outputs,) that make `stride` rows of a pair."""
        # Row t of the product: x[t] through the first half of the kernel, x[t - 1] through the second.
        halves = self.weight.unflatten(2, (2, self.stride)).permute(3, 1, 2, 0).reshape(-1, 2 * self.inputs)
        return halves, self.bias.repeat(self.stride)

    def _pairs(self, x: Tensor) -> Tensor:
        """(B, T + 1, inputs) → (B, T * stride, outputs): the rows that both of two neighbours reach."""
        x = F.leaky_relu(x, self.slope)
        matrix, bias = self._product() if self._packed is None else self._packed
        y = F.linear(torch.cat([x[:, 1:], x[:, :-1]], dim=2), matrix, bias)
        return y.unflatten(2, (self.stride, self.outputs)).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self._pairs(F.pad(x, (0, 0, 1, 1)))
        return y[:, self.stride // 2 :][:, : x.shape[1] * self.stride]

    def place(self, span: Span) -> Span:
        return span.times(self.stride).earlier(self.stride // 2)

    def initial(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, 1, self.inputs, dtype=self.weight.dtype)

    def step(self, x: Tensor, span: Span, cache: Tensor) -> tuple[Tensor, Span, Tensor]:
        rows = torch.cat([cache, x.to(cache.dtype)], dim=1)
        y = self._pairs(bordered(rows, span.earlier(1), "zero"))
        return y.to(x.dtype), self.place(span), rows[:, -1:]


class Chain(Layer):
    """One layer after another."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __iter__(self) -> Any:
        return iter(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x

    def place(self, span: Span) -> Span:
        for layer in self:
            span = layer.place(span)
        return span

    def initial(self, batch: int, like: Tensor) -> tuple[Any, ...]:
        return tuple(layer.initial(batch, like) for layer in self)

    def step(self, x: Tensor, span: Span, cache: Any) -> tuple[Tensor, Span, Any]:
        moved = []
        for layer, own in zip(self, cache, strict=True):
            x, span, own = layer.step(x, span, own)
            moved.append(own)
        return x, span, tuple(moved)


class Tanh(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def initial(self, batch: int, like: Tensor) -> tuple[()]:
        return ()

    def step(self, x: Tensor, span: Span, cache: tuple[()]) -> tuple[Tensor, Span, tuple[()]]:
        return torch.tanh(x), span, cache


def _delayed(x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
    """x behind the rows waiting in `cache`, and what waits next."""
    if not cache.shape[1]:
        return x, cache
    x = torch.cat([cache, x.to(cache.dtype)], dim=1)
    rows = x.shape[1] - cache.shape[1]
    return x[:, :rows], x[:, rows:]


class Residual(Layer):
    """shortcut(x) + body(x); `shortcut` looks at single rows."""

    def __init__(self, body: Chain, shortcut: Conv | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def _skip(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else self.shortcut(x)

    def forward(self, x: Tensor) -> Tensor:
        return self._skip(x) + self.body(x)

    def place(self, span: Span) -> Span:
        return self.body.place(span)

    def initial(self, batch: int, like: Tensor) -> tuple[Tensor, Any]:
        first = self.body.layers[0]
        assert isinstance(first, Conv)
        waiting = like.new_zeros(batch, self.delay, first.inputs)
        return waiting, self.body.initial(batch, like)

    def step(self, x: Tensor, span: Span, cache: tuple[Tensor, Any]) -> tuple[Tensor, Span, Any]:
        y, late, body = self.body.step(x, span, cache[1])
        x, waiting = _delayed(x, cache[0])
        return self._skip(x).to(x.dtype) + y, late, (waiting, body)


class Mean(Layer):
    """Mean of parallel branches; the quicker ones wait for the slowest."""

    def __init__(self, branches: Sequence[Layer], channels: int) -> None:
        super().__init__()
        self.branches, self.channels = nn.ModuleList(branches), channels

    def forward(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in self.branches[1:]:  # type: ignore[union-attr]
            total = total + branch(x)
        return total / len(self.branches)

    def place(self, span: Span) -> Span:
        return span.earlier(max(branch.delay for branch in self.branches))  # type: ignore[type-var, arg-type]

    def initial(self, batch: int, like: Tensor) -> tuple[Any, ...]:
        caches = []
        for branch in self.branches:
            assert isinstance(branch, Layer)
            waiting = like.new_zeros(batch, self.delay - branch.delay, self.channels)
            caches.append((waiting, branch.initial(batch, like)))
        return tuple(caches)

    def step(self, x: Tensor, span: Span, cache: Any) -> tuple[Tensor, Span, Any]:
        total, moved = None, []
        for branch, (waiting, own) in zip(self.branches, cache, strict=True):
            y, _, own = branch.step(x, span, own)  # type: ignore[operator]
            y, waiting = _delayed(y, waiting)
            moved.append((waiting, own))
            total = y if total is None else total.add_(y)
        assert total is not None
        return total.div_(len(self.branches)), self.place(span), tuple(moved)


def weighted(module: nn.Module) -> list[Conv | Up]:
    """The layers with weights, in order."""
    return [layer for layer in module.modules() if isinstance(layer, Conv | Up)]


def add_weight_norm(module: nn.Module) -> None:
    """Weight normalisation on every Conv and Up (over all but the first dimension), as GAN vocoders train with."""
    for layer in weighted(module):
        parametrizations.weight_norm(layer, "weight", dim=0)


def _initialise(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)
