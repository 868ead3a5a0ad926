"""The diagonal linear recurrence h_t = a_t h_{t-1} + b_t."""

from __future__ import annotations

import torch
from torch import Tensor

from melstate.kernels.backend import Backend, debug, resolve
from melstate.kernels.lengths import check_lengths, check_packed, unpack_index, valid_frames
from melstate.kernels.scan_chunked import scan_chunked


def scan(
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """h_t = a_t ⊙ h_{t-1} + b_t.

    Args:
        a: (B, T, D) decay, |a| <= 1.
        b: (B, T, D) input.
        state: h_0, (B, D) float32 (float64 for float64 inputs); zeros if None. With cu_seqlens (N, D).
        lengths: (B,) real frames per row; h is 0 and the state stands still after them.
        cu_seqlens: (N + 1,) with B = 1: N sequences packed along time. Not together with lengths.
        backend: see melstate.kernels.backend.
    Returns: h (B, T, D) in b's dtype and the state after the last real step, shaped as `state`. Both differentiable.
    Raises:
        ValueError: shapes, dtypes or devices disagree; with MELSTATE_DEBUG=1 also |a| > 1.
        RuntimeError: backend="triton" was asked for and cannot run.
    Source: De et al. 2024, arXiv:2402.19427 (Griffin), section 2.4.
    """
    if a.dim() != 3 or a.shape != b.shape:
        raise ValueError(f"scan: need a and b (B, T, D) of one shape, got a {tuple(a.shape)}, b {tuple(b.shape)}")
    if a.dtype != b.dtype or not a.is_floating_point():
        raise ValueError(f"scan: a and b must share one floating dtype, got {a.dtype} and {b.dtype}")
    if debug() and bool((a.abs() > 1).any()):
        raise ValueError(f"scan: |a| must be <= 1 (the state would grow), got a maximum of {float(a.abs().max()):g}")
    batch, time, width = a.shape
    if lengths is not None and cu_seqlens is not None:
        raise ValueError("scan: give lengths (padded rows) or cu_seqlens (packed rows), not both")
    if lengths is not None:
        check_lengths(lengths, batch, time, operation="scan")
    if cu_seqlens is not None:
        check_packed(cu_seqlens, batch, time, operation="scan")
    rows = batch if cu_seqlens is None else cu_seqlens.numel() - 1
    accumulator = torch.float64 if a.dtype == torch.float64 else torch.float32
    if state is None:
        state = a.new_zeros(rows, width, dtype=accumulator)
    elif state.shape != (rows, width) or state.dtype != accumulator:
        raise ValueError(f"scan: state must be {(rows, width)} {accumulator}, got {tuple(state.shape)} {state.dtype}")
    if not a.device == b.device == state.device:
        raise ValueError(f"scan: operands must share one device, got {a.device}, {b.device}, {state.device}")
    form = resolve(backend, a, operation="scan")
    if form == "triton":
        from melstate.kernels.scan_triton import scan_triton

        return scan_triton(a, b, state, lengths, cu_seqlens)
    if cu_seqlens is not None:
        packed, row, step = unpack_index(cu_seqlens)
        shape = packed.numel(), int(packed.max()), width
        a, b = (x.new_zeros(shape).index_put((row, step), x[0]) for x in (a, b))
        h, state = scan(a, b, state, lengths=packed, backend=form)
        return h[row, step][None], state
    valid = None
    if lengths is not None:
        # Padding may hold NaN: it must be replaced, not multiplied by zero. a = 1, b = 0 keeps the state.
        valid = valid_frames(lengths, time)[..., None]
        a, b = torch.where(valid, a, 1), torch.where(valid, b, 0)
    if time == 1 or form == "reference":
        h, state = scan_reference(a, b, state)
    else:
        h, state = scan_chunked(a, b, state)
    return h if valid is None else torch.where(valid, h, 0), state


def scan_reference(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, one step after the other; autograd gives its gradients."""
    outputs = []
    for t in range(a.shape[1]):
        state = torch.addcmul(b[:, t].to(state.dtype), a[:, t].to(state.dtype), state)
        outputs.append(state)
    return (torch.stack(outputs, 1) if outputs else b.to(state.dtype)).to(b.dtype), state
