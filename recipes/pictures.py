"""Tensors as TensorBoard images."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def heat_map(values: Tensor) -> Tensor:
    """(rows, columns) of any range → (1, rows, columns) in 0..1, row 0 at the bottom."""
    values = values.detach().float().cpu().flip(0)
    low, high = values.min(), values.max()
    return ((values - low) / (high - low).clamp(min=1e-6)).unsqueeze(0)


def log_heat_map(logger: Any, name: str, values: Tensor, step: int) -> None:
    """Adds `values` (rows, columns) to a TensorBoard logger; other loggers, or none, are left alone."""
    writer: Any = getattr(logger, "experiment", None)
    if hasattr(writer, "add_image"):
        writer.add_image(name, heat_map(values), step)
