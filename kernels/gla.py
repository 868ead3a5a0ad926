"""Gated linear attention: a matrix-valued state that decays per key channel, per value channel, or both."""

from __future__ import annotations

import torch
from torch import Tensor

from melstate.kernels.backend import Backend, debug, resolve
from melstate.kernels.gla_chunked import gla_chunked
from melstate.kernels.lengths import check_lengths, check_packed, unpack_index, valid_frames


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor | None = None,
    *,
    value_log_decay: Tensor | None = None,
    bonus: Tensor | None = None,
    scale: float = 1.0,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Gated linear attention: S_t = diag(e^{f_t}) S_{t-1} diag(e^{h_t}) + k_t v_t^T; y_t = scale · S_t^T q_t.

    With `bonus` u the output reads one step earlier (RWKV-6): y_t = scale · (S_{t-1} + diag(u) k_t v_t^T)^T q_t.

    Args:
        q, k: (B, T, H, K).
        v: (B, T, H, V).
        log_decay: f, (B, T, H, K) natural log of the decay per step and key channel, <= 0; None keeps everything.
        state: S_0, (B, H, K, V) float32 (float64 for float64 inputs); zeros if None. With cu_seqlens (N, H, K, V).
        value_log_decay: h, (B, T, H, V) <= 0; None keeps everything. Not together with bonus.
        bonus: u, (H, K).
        lengths: (B,) real frames per row; y is 0 and the state stands still after them.
        cu_seqlens: (N + 1,) with B = 1: N sequences packed along time. Not together with lengths.
        backend: see melstate.kernels.backend.
    Returns: y (B, T, H, V) in v's dtype, and the state after the last real step, like `state`. Both differentiable.
    Raises:
        ValueError: shapes, dtypes or devices disagree; with MELSTATE_DEBUG=1 also a positive log decay.
        RuntimeError: backend="triton" was asked for and cannot run.
    Source: Yang et al. 2023, arXiv:2312.06635, section 4; value decay Mao 2022, arXiv:2210.04243; bonus Peng et al.
    2024, arXiv:2404.05892.
    """
    _check(q, k, v, log_decay, state, value_log_decay, bonus)
    batch, time = q.shape[:2]
    if lengths is not None and cu_seqlens is not None:
        raise ValueError("gla: give lengths (padded rows) or cu_seqlens (packed rows), not both")
    if lengths is not None:
        check_lengths(lengths, batch, time, operation="gla")
    if cu_seqlens is not None:
        check_packed(cu_seqlens, batch, time, operation="gla")
    rows = batch if cu_seqlens is None else cu_seqlens.numel() - 1
    accumulator = torch.float64 if q.dtype == torch.float64 else torch.float32
    if state is None:
        state = q.new_zeros(rows, q.shape[2], q.shape[3], v.shape[3], dtype=accumulator)
    elif state.shape != (rows, q.shape[2], q.shape[3], v.shape[3]) or state.dtype != accumulator:
        raise ValueError(
            f"gla: state must be {(rows, q.shape[2], q.shape[3], v.shape[3])} {accumulator}, "
            f"got {tuple(state.shape)} {state.dtype}"
        )
    form = resolve(backend, q, operation="gla")
    if form == "triton":
        from melstate.kernels.gla_triton import gla_triton

        return gla_triton(q, k, v, log_decay, value_log_decay, bonus, state, scale, lengths, cu_seqlens)
    if cu_seqlens is not None:
        return _packed(q, k, v, log_decay, state, value_log_decay, bonus, scale, cu_seqlens, form)
    if form == "reference":
        return gla_reference(q, k, v, log_decay, state, value_log_decay, bonus, scale, lengths)
    if time == 1 and lengths is None:
        y, state = gla_step(
            q[:, 0], k[:, 0], v[:, 0], _frame(log_decay, 0), state, _frame(value_log_decay, 0), bonus, scale
        )
        return y[:, None], state
    return gla_chunked(q, k, v, log_decay, value_log_decay, bonus, state, scale, lengths)


def gla_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    value_log_decay: Tensor | None = None,
    bonus: Tensor | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One step in plain PyTorch: q, k, decay (B, H, K), v (B, H, V), state (B, H, K, V) → y (B, H, V), new state.

    Holds no data-dependent control flow, so torch.compile and torch.export take it whole.
    """
    q, k, v_ = (x.to(state.dtype) for x in (q, k, v))
    before = state
    if log_decay is not None:
        state = state * log_decay.to(state.dtype).exp()[..., None]
    if value_log_decay is not None:
        state = state * value_log_decay.to(state.dtype).exp()[..., None, :]
    state = torch.addcmul(state, k[..., None], v_[..., None, :])
    read = state
    if bonus is not None:
        read = torch.addcmul(before, (k * bonus.to(state.dtype))[..., None], v_[..., None, :])
    y = torch.matmul((q * scale)[..., None, :], read).squeeze(-2)
    return y.to(v.dtype), state


def gla_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    state: Tensor,
    value_log_decay: Tensor | None = None,
    bonus: Tensor | None = None,
    scale: float = 1.0,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after the other, as `gla` documents it; autograd gives its gradients."""
    if lengths is not None:
        # Padding may hold NaN: it must be replaced, not multiplied by zero. No input, no decay: the state stands still.
        valid = valid_frames(lengths, q.shape[1])[:, :, None, None]
        q, k, v = (torch.where(valid, x, 0) for x in (q, k, v))
        log_decay = None if log_decay is None else torch.where(valid, log_decay, 0)
        value_log_decay = None if value_log_decay is None else torch.where(valid, value_log_decay, 0)
    outputs = []
    for t in range(q.shape[1]):
        y, state = gla_step(
            q[:, t], k[:, t], v[:, t], _frame(log_decay, t), state, _frame(value_log_decay, t), bonus, scale
        )
        outputs.append(y)
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v), state


def _frame(x: Tensor | None, t: int) -> Tensor | None:
    return None if x is None else x[:, t]


def _packed(q, k, v, log_decay, state, value_log_decay, bonus, scale, cu_seqlens, form):
    """Packed sequences as padded rows and back; the PyTorch forms need rows of one length."""
    lengths, rows, times = unpack_index(cu_seqlens)
    longest = int(lengths.max())

    def pad(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.new_zeros(lengths.numel(), longest, *x.shape[2:]).index_put((rows, times), x[0])

    padded = [pad(x) for x in (q, k, v, log_decay)]
    y, state = gla(
        *padded, state, value_log_decay=pad(value_log_decay), bonus=bonus, scale=scale, lengths=lengths, backend=form
    )
    return y[rows, times][None], state


def _check(q, k, v, log_decay, state, value_log_decay, bonus) -> None:
    if q.dim() != 4 or k.shape != q.shape or v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "gla: need q and k (B, T, H, K) and v (B, T, H, V) with equal B, T, H; "
            f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        )
    if not q.is_floating_point() or not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"gla: q, k, v must share one floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    for name, decay, like in (("log_decay", log_decay, k), ("value_log_decay", value_log_decay, v)):
        if decay is None:
            continue
        if decay.shape != like.shape:
            raise ValueError(f"gla: {name} must be {tuple(like.shape)}, got {tuple(decay.shape)}")
        if debug() and bool((decay > 0).any()):
            raise ValueError(f"gla: {name} must be <= 0 (the state would grow), got up to {float(decay.max()):g}")
    if bonus is not None and bonus.shape != (q.shape[2], q.shape[3]):
        raise ValueError(f"gla: bonus must be (H, K) = {(q.shape[2], q.shape[3])}, got {tuple(bonus.shape)}")
    if bonus is not None and value_log_decay is not None:
        raise ValueError("gla: bonus and value_log_decay do not combine; give one of them")
    given = (x for x in (k, v, log_decay, state, value_log_decay, bonus) if x is not None)
    devices = {str(x.device) for x in given} | {str(q.device)}
    if len(devices) > 1:
        raise ValueError(f"gla: operands must share one device, got {', '.join(sorted(devices))}")
