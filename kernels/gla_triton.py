"""Gated linear attention fused in Triton: one pass forward, three sweeps backward, one launch per decoded frame.

Import needs triton; melstate.kernels.gla imports this file on first use. Operands stay float32 under the interpreter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from melstate.kernels.gla_backward_triton import dk_kernel, dq_kernel, dv_kernel
from melstate.kernels.gla_forward_triton import forward_kernel, step_kernel


def gla_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    bonus: Tensor | None,
    state: Tensor,
    scale: float,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`melstate.kernels.gla.gla` for checked operands; see there for shapes.

    Raises: ValueError: float64 operands, or key or value widths whose state does not fit into registers.
    """
    if q.dtype == torch.float64:
        raise ValueError("gla: Triton computes in float32 and takes no float64 operands; use backend='chunked'")
    if max(q.shape[3], v.shape[3]) > 256:
        raise ValueError(
            f"gla: Triton takes at most 256 key and value channels per head, got {q.shape[3]} and {v.shape[3]}; "
            "use more heads or backend='chunked'"
        )
    return _Gla.apply(q, k, v, log_decay, value_log_decay, bonus, state, scale, lengths, cu_seqlens)


class _Gla(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, f, h, u, state, scale, lengths, cu_seqlens):
        launch = _Launch(q, k, v, f, h, u, state, scale, lengths, cu_seqlens)
        # Decay gradients of the values need y; rounding it to bfloat16 would drown them.
        exact = h is not None and any(ctx.needs_input_grad)
        y = launch.output(v, torch.float32 if exact else v.dtype)
        final = torch.empty_like(state, memory_format=torch.contiguous_format)
        if launch.time == 1 and lengths is None and cu_seqlens is None:
            launch.step(y, final)
        else:
            launch.forward(y, final)
        ctx.launch_scale = scale
        ctx.save_for_backward(q, k, v, f, h, u, state, lengths, cu_seqlens, final, y if exact else None)
        return y.to(v.dtype), final.clone() if any(ctx.needs_input_grad) else final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, dfinal):
        q, k, v, f, h, u, state, lengths, cu_seqlens, final, y = ctx.saved_tensors
        launch = _Launch(q, k, v, f, h, u, state, ctx.launch_scale, lengths, cu_seqlens)
        return *launch.backward(y, dy, final, dfinal), None, None, None


class _Launch:
    """Operands as the kernels take them, and the choice of blocks."""

    def __init__(self, q, k, v, f, h, u, state, scale, lengths, cu_seqlens) -> None:
        self.batch, self.time, self.heads, self.keys = q.shape
        self.values, self.scale, self.u = v.shape[3], scale, u
        self.q, self.k, self.v = _rows(q), _rows(k), _rows(v)
        self.f, self.h = (None if x is None else _rows(x) for x in (f, h))
        self.state = state.contiguous()
        self.programs = state.shape[0] * self.heads
        self.mode = 1 if lengths is not None else 2 if cu_seqlens is not None else 0
        ends = lengths if lengths is not None else cu_seqlens
        self.ends = q.new_zeros(1, dtype=torch.int32) if ends is None else ends.contiguous()
        # A missing operand is never read; any pointer stands in.
        operands: list[Tensor | int] = []
        for x in (self.q, self.k, self.v, self.f, self.h):
            operands += [self.q, 0] if x is None else [x, x.stride(1)]
        self.operands = [*operands, self.q if u is None else u.contiguous()]
        low = q.dtype == torch.bfloat16 and not triton.knobs.runtime.interpret
        self.flags = {"F": f is not None, "HV": h is not None, "U": u is not None}
        self.dot = {"DOT": tl.bfloat16 if low else tl.float32}

    def output(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Contiguous memory for a result: zeroed where padding stays unwritten."""
        make = torch.zeros if self.mode == 1 else torch.empty
        return make(like.shape, dtype=dtype, device=like.device)

    def forward(self, y: Tensor, final: Tensor) -> None:
        keys, values, options = self.blocks(whole_keys=True)
        grid = triton.cdiv(self.values, values), self.programs
        self.run(forward_kernel, grid, keys, values, options,
                 *self.operands, y, y.stride(1), self.state, final, self.ends, self.time, self.scale)  # fmt: skip

    def step(self, y: Tensor, final: Tensor) -> None:
        keys, values = _block(self.keys), min(_block(self.values), 32)
        grid = triton.cdiv(self.values, values), self.programs
        step_kernel[grid](
            *self.operands, y, y.stride(1), self.state, final, self.scale, self.heads, self.keys, self.values,
            BK=keys, BV=values, **self.flags, num_warps=4,
        )  # fmt: skip

    def backward(self, y: Tensor | None, dy: Tensor, final: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
        dy, dfinal = _rows(dy), dfinal.contiguous()
        q, k, v, f, h = self.q, self.k, self.v, self.f, self.h
        # float32: decay gradients are small differences of products with dq.
        dq, dk, dv = self.output(q, torch.float32), self.output(k, k.dtype), self.output(v, v.dtype)
        df = dq if f is None else self.output(f, torch.float32)
        dh = dv if h is None else self.output(h, torch.float32)
        dstart = torch.empty_like(self.state)
        keys, values, options = self.blocks(whole_keys=False)
        grid = triton.cdiv(self.keys, keys), self.programs
        tail = self.ends, self.time, self.scale
        self.run(dq_kernel, grid, keys, values, options,
                 *self.operands, dy, dy.stride(1), dq, self.state, *tail)  # fmt: skip
        self.run(dk_kernel, grid, keys, values, options,
                 *self.operands, dy, dy.stride(1), dq, dk, df, final, dfinal, dstart, *tail)  # fmt: skip
        keys, values, options = self.blocks(whole_keys=True)
        grid = triton.cdiv(self.values, values), self.programs
        self.run(dv_kernel, grid, keys, values, options,
                 *self.operands, dy if y is None else y, dy, dy.stride(1), dv, dh, final, dfinal, *tail)  # fmt: skip
        du = None if self.u is None else self.bonus_gradient(dy)
        return (dq.to(q.dtype), dk, dv, None if f is None else df.to(f.dtype), None if h is None else dh.to(h.dtype),
                du, dstart)  # fmt: skip

    def bonus_gradient(self, dy: Tensor) -> Tensor:
        score = (dy.float() * self.v.float()).sum(-1, keepdim=True) * self.scale
        part = self.q.float() * self.k.float() * score
        if self.mode == 1:
            real = torch.arange(self.time, device=dy.device) < self.ends[:, None]
            part = torch.where(real[:, :, None, None], part, 0)
        return part.sum((0, 1)).to(self.u.dtype)

    def blocks(self, *, whole_keys: bool) -> tuple[int, int, dict[str, int]]:
        """Key block, value block, and launch options: one side whole, the other in blocks of at most 64.

        The chunk shrinks as the whole side grows, so that the tiles of a program stay in registers.
        """
        whole = _block(self.keys if whole_keys else self.values)
        part = min(_block(self.values if whole_keys else self.keys), 64 if whole <= 128 else 32)
        chunk = 64 if whole <= 64 else 32 if whole <= 128 else 16
        options = {"BC": chunk, "num_warps": 4 if whole <= 64 else 8}
        return (whole, part, options) if whole_keys else (part, whole, options)

    def run(self, kernel, grid, keys: int, values: int, options: dict[str, int], *arguments) -> None:
        if not self.programs:
            return
        kernel[grid](
            *arguments, self.heads, self.keys, self.values, MODE=self.mode, BK=keys, BV=values, **options,
            **self.flags, **self.dot,
        )  # fmt: skip


def _block(width: int) -> int:
    return max(16, triton.next_power_of_2(width))


def _rows(x: Tensor) -> Tensor:
    """x (B, T, H, D) such that heads lie side by side and rows follow each other: one stride per token is enough."""
    batch, time, _, width = x.shape
    sides = x.stride(3) == 1 and x.stride(2) == width
    return x if sides and (batch == 1 or x.stride(0) == time * x.stride(1)) else x.contiguous()
