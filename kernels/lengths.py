"""Which frames are real: padded rows with `lengths`, packed rows with `cu_seqlens`, and the way between them."""

from __future__ import annotations

import torch
from torch import Tensor


def check_lengths(lengths: Tensor, batch: int, time: int, *, operation: str) -> None:
    """Raises ValueError unless `lengths` is an integer (batch,) tensor; its values are checked on the CPU only."""
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"{operation}: lengths must be an integer tensor of shape ({batch},), "
            f"got {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    if lengths.is_cuda or not batch:
        return
    least, most = int(lengths.min()), int(lengths.max())
    if least < 0 or most > time:
        raise ValueError(f"{operation}: lengths must lie in 0..{time} (the time axis), got {least}..{most}")


def valid_frames(lengths: Tensor, time: int) -> Tensor:
    """(B, time) bool: frame t of row b is real, i.e. t < lengths[b]."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def check_packed(cu_seqlens: Tensor, batch: int, time: int, *, operation: str) -> None:
    """Raises ValueError unless `cu_seqlens` is 0 = c_0 <= c_1 <= … <= c_N = time and the batch axis is 1."""
    if batch != 1:
        raise ValueError(
            f"{operation}: cu_seqlens packs sequences along time, so the batch axis must be 1, got {batch}"
        )
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 2 or cu_seqlens.is_floating_point():
        raise ValueError(
            f"{operation}: cu_seqlens must be integers of shape (sequences + 1,), "
            f"got {cu_seqlens.dtype} of shape {tuple(cu_seqlens.shape)}"
        )
    if not cu_seqlens.is_cuda:
        ends = cu_seqlens.tolist()
        if ends[0] != 0 or ends[-1] != time or any(b < a for a, b in zip(ends, ends[1:], strict=False)):
            raise ValueError(f"{operation}: cu_seqlens must rise from 0 to the time axis {time}, got {ends}")


def unpack_index(cu_seqlens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How packed sequences map to padded rows.

    Returns: lengths (N,); rows (total,) and times (total,), so that padded[rows, times] = packed[0].
    """
    lengths = cu_seqlens[1:] - cu_seqlens[:-1]
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=lengths.device), lengths)
    times = torch.arange(int(cu_seqlens[-1]), device=lengths.device) - cu_seqlens[rows]
    return lengths, rows, times
