"""The Mixer interface and the registry that a config names mixers by."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

# name -> (module, class); imported on first use so that one mixer's needs are never another's.
_MIXERS = {
    "gla": ("melstate.mixers.gla", "GLA"),
    "fast_weights": ("melstate.mixers.fast_weights", "DecayingFastWeights"),
    "rg_lru": ("melstate.mixers.rg_lru", "RGLRU"),
    "hgrn2": ("melstate.mixers.hgrn2", "HGRN2"),
    "gate_loop": ("melstate.mixers.gate_loop", "GateLoop"),
    "rwkv6": ("melstate.mixers.rwkv6", "RWKV6"),
    "lstm": ("melstate.mixers.lstm", "LSTM"),
    "gru": ("melstate.mixers.lstm", "GRU"),
    "attention": ("melstate.mixers.attention", "Attention"),
    "window_attention": ("melstate.mixers.attention", "WindowAttention"),
    "short_conv": ("melstate.mixers.short_conv", "ShortConv"),
}


class Mixer(nn.Module):
    """Mixes information along time: (B, T, dim) → (B, T, dim). Any split of x gives the same y.

    Attributes:
        dim: width of input and output.
        causal: whether y_t depends on x_1 … x_t alone.
        constant_state: whether the state's size is the same after any number of frames.
    """

    dim: int
    causal: ClassVar[bool] = True
    constant_state: ClassVar[bool] = True

    def init_state(self, batch: int) -> Any:
        """The state before the first frame: a NamedTuple of tensors, batch first, on the parameters' device."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: Any = None, *, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Mixes x and moves the state past it.

        Args:
            x: (B, T, dim). T = 1 takes the step form.
            state: what the call before returned, or None at the start. It is never modified.
            lengths: (B,) real frames per row. The others change neither the outputs before them nor the state;
                outputs there mean nothing (they are finite if x is).
        Returns: y (B, T, dim) and the new state.
        """
        raise NotImplementedError

    def state_bytes(self, batch: int = 1) -> int:
        """Bytes of the state at the start; its size for ever where `constant_state`."""
        return sum(x.numel() * x.element_size() for x in _tensors(self.init_state(batch)))


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [x for part in state for x in _tensors(part)] if isinstance(state, tuple | list) else []


def names() -> tuple[str, ...]:
    """The mixers that `create` knows."""
    return tuple(_MIXERS)


def create(name: str, dim: int, **options: Any) -> Mixer:
    """The mixer called `name` in configs, of width `dim`.

    Raises: ValueError: unknown name, or an option the mixer does not take.
    """
    if name not in _MIXERS:
        raise ValueError(f"mixer {name!r} is not one of {', '.join(names())}")
    module, attribute = _MIXERS[name]
    kind: Callable[..., Mixer] = getattr(importlib.import_module(module), attribute)
    try:
        return kind(dim, **options)
    except TypeError as error:
        raise ValueError(f"mixer {name!r} with options {options}: {error}") from error


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads * D) → (B, T, heads, D)."""
    return x.unflatten(-1, (heads, -1))


def zeros(module: nn.Module, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros on the module's device; in its dtype unless one is given."""
    parameter = next(module.parameters())
    return parameter.new_zeros(shape, dtype=dtype)


def accumulator(module: nn.Module) -> torch.dtype:
    """The dtype of recurrent states: float32, or float64 for a float64 module."""
    return torch.float64 if next(module.parameters()).dtype == torch.float64 else torch.float32
