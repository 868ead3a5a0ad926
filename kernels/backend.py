"""Which form of a recurrence runs: definition, chunked PyTorch, or Triton. Chosen per call, never swapped silently."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "reference", "chunked", "triton"]
Resolved = Literal["reference", "chunked", "triton"]


def debug() -> bool:
    """Whether MELSTATE_DEBUG=1 asks for checks that read tensor values (and so wait for the device)."""
    return os.environ.get("MELSTATE_DEBUG", "0") == "1"


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Whether Triton runs its CPU interpreter (TRITON_INTERPRET=1, set before triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def resolve(backend: Backend, tensor: Tensor, *, operation: str) -> Resolved:
    """The form to run for a call whose operands look like `tensor`.

    "auto" is Triton on CUDA when it is installed, else chunked. Anything else is what was asked for, or an error.

    Raises:
        ValueError: not a known backend.
        RuntimeError: "triton" was asked for and cannot run here; says why.
    """
    if backend == "auto":
        return "triton" if tensor.is_cuda and torch.version.hip is None and _has_triton() else "chunked"
    if backend not in get_args(Backend):
        raise ValueError(f"{operation}: backend {backend!r} is not one of {', '.join(get_args(Backend))}")
    if backend == "triton":
        if not _has_triton():
            raise RuntimeError(
                f"{operation}: backend='triton' was asked for but triton is not installed; use 'chunked'"
            )
        if not (tensor.is_cuda or interpreting()):
            raise RuntimeError(
                f"{operation}: backend='triton' needs CUDA tensors, got device {tensor.device}; "
                "use 'chunked', or TRITON_INTERPRET=1 to debug the kernel"
            )
    return backend
