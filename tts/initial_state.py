"""What a recurrent decoder starts from, learned: a speaker is an initial state of low rank.

Source: Lemerle et al. 2024, Lina-Speech (arXiv:2410.23320), initial-state tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class InitialStates(nn.Module):
    """Initial states of several speakers.

    Of a mixer's state, matrices (heads × K × V) start as A Bᵀ of the given rank and vectors as they were learned; what
    holds past inputs, as convolutions do, starts as silence. Untrained, everything is zero.

    Args:
        blank: the state of one row before the first frame, all zeros.
        speakers: how many.
        rank: r.
    """

    def __init__(self, blank: Any, speakers: int, rank: int) -> None:
        super().__init__()
        if speakers < 1 or rank < 1:
            raise ValueError(f"initial states: need speakers >= 1 and rank >= 1, got {speakers} and {rank}")
        self.speakers, self.rank = speakers, rank
        self.left, self.right, self.vector = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for leaf in leaves(blank):
            if _is_matrix(leaf):
                heads, keys, values = leaf.shape[1:]
                self.left.append(nn.Parameter(torch.randn(speakers, heads, keys, rank) * rank**-0.5))
                self.right.append(nn.Parameter(torch.zeros(speakers, heads, values, rank)))
            elif _is_vector(leaf):
                self.vector.append(nn.Parameter(torch.zeros(speakers, leaf.shape[1])))

    def forward(self, blank: Any, speakers: Tensor) -> Any:
        """The states to start from.

        Args:
            blank: zeros of the wanted shape, as `init_state(batch)` gives them.
            speakers: (B,) indices.
        Raises: ValueError: a speaker that is not there.
        """
        if int(speakers.max()) >= self.speakers or int(speakers.min()) < 0:
            raise ValueError(
                f"speaker must be in 0..{self.speakers - 1}, got {int(speakers.min())}..{int(speakers.max())}"
            )
        matrices, vectors = iter(zip(self.left, self.right, strict=True)), iter(self.vector)

        def start(leaf: Tensor) -> Tensor:
            if _is_matrix(leaf):
                left, right = next(matrices)
                return (left[speakers].float() @ right[speakers].float().transpose(-1, -2)).to(leaf.dtype)
            return next(vectors)[speakers].to(leaf.dtype) if _is_vector(leaf) else leaf

        return map_state(blank, start)


def map_state(state: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of NamedTuples and tuples with every tensor replaced, in order."""
    if isinstance(state, Tensor):
        return function(state)
    parts = [map_state(part, function) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def leaves(state: Any) -> list[Tensor]:
    """All tensors of a state, in order."""
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in leaves(part)]


def state_bytes(state: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(state))


def _is_matrix(leaf: Tensor) -> bool:
    return leaf.dim() == 4 and leaf.is_floating_point() and leaf.numel() > 0


def _is_vector(leaf: Tensor) -> bool:
    return leaf.dim() == 2 and leaf.is_floating_point() and leaf.numel() > 0
