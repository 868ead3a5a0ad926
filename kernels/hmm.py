"""Left-to-right hidden Markov models that skip no state: likelihood with its analytic gradient, posteriors, Viterbi.

A path starts in state 0, from one frame to the next stays or moves on by one, and leaves the last state after the last
frame. With log-densities b_t(n) and transition logits v_t(n), P(move) = sigmoid(v):

    a_0(0) = b_0(0)
    a_t(n) = b_t(n) + log(e^{a_{t-1}(n)} (1 - p_t(n)) + e^{a_{t-1}(n-1)} p_t(n-1))
    L      = a_{T-1}(N-1) + log p_exit,   p_exit = sigmoid(v_{T-1}(N-1))

The move from frame t-1 to t is decided by v_{t-1} in the "generative" convention, the one that synthesis follows, and
by v_t in the "published" one, which the public Neural-HMM code trains with (it synthesises by the other).

Source: Mehta et al. 2021 (Neural HMMs are all you need, arXiv:2108.13320); Rabiner 1989 for the recursions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.kernels.backend import Backend, resolve

Convention = Literal["generative", "published"]
INFINITY = float("inf")


def hmm_reference(emission: Tensor, transition: Tensor, convention: Convention = "generative") -> Tensor:
    """The definition, for one utterance, by the letter; autograd gives its gradient. emission, transition: (T, N)."""
    frames, states = emission.shape
    stay, move = F.logsigmoid(-transition), F.logsigmoid(transition)
    impossible = emission.new_tensor(-INFINITY)
    alpha = [emission[0, 0]] + [impossible] * (states - 1)
    for t in range(1, frames):
        decided = t - 1 if convention == "generative" else t
        paths = [[alpha[0] + stay[decided, 0]]]
        paths += [[alpha[n] + stay[decided, n], alpha[n - 1] + move[decided, n - 1]] for n in range(1, states)]
        alpha = [
            emission[t, n] + torch.stack(ways).logsumexp(0) if n <= t else impossible for n, ways in enumerate(paths)
        ]
    return alpha[-1] + move[-1, -1]


def hmm_log_likelihood(
    emission: Tensor,
    transition: Tensor,
    frames: Tensor,
    states: Tensor,
    *,
    convention: Convention = "generative",
    names: Sequence[str] | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """L of each row of a padded batch, differentiable once in emission and transition.

    What no path can visit is not read (see `feasible`): padding, states that cannot be reached yet, states that can no
    longer reach the end. Of transitions, `readable` is read.

    Args:
        emission: (B, T, N) log-density of frame t in state n, float32 or float64.
        transition: (B, T, N) logit of moving on.
        frames, states: (B,) how many of each are real; 1 <= states <= frames.
        convention: see the module.
        names: of the utterances, for messages.
        backend: "chunked" is vectorised PyTorch; see melstate.kernels.backend.
    Returns: (B,) in the dtype of `emission`; the sum over frames is kept in float64.
    Raises:
        ValueError: shapes disagree, or an utterance has fewer frames than states, or (on the CPU) its likelihood is not
            finite; the utterance is named.
        RuntimeError: backend="triton" was asked for and cannot run.
    """
    _check(emission, transition, frames, states, convention, names)
    form = resolve(backend, emission, operation="hmm")
    if form == "reference":
        rows = zip(emission, transition, frames.tolist(), states.tolist(), strict=True)
        return torch.stack([hmm_reference(b[:t, :n], v[:t, :n], convention) for b, v, t, n in rows])
    found = _LogLikelihood.apply(emission, transition, frames, states, convention, form)
    if not found.is_cuda and not found.isfinite().all():
        row = int((~found.isfinite()).nonzero()[0])
        raise ValueError(
            f"hmm: log-likelihood of {_name(names, row)} is {found[row].item()}; its emissions or transitions hold "
            "NaN or infinity: the model has diverged or its input is damaged"
        )
    return found


def hmm_posteriors(
    emission: Tensor,
    transition: Tensor,
    frames: Tensor,
    states: Tensor,
    *,
    convention: Convention = "generative",
    names: Sequence[str] | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """(B, T, N) probability of being in state n at frame t given all frames; real frames sum to 1, padding is 0.

    Arguments and errors as `hmm_log_likelihood`; backend="reference" differentiates the definition.
    """
    _check(emission, transition, frames, states, convention, names)
    form = resolve(backend, emission, operation="hmm")
    if form == "reference":
        with torch.enable_grad():
            leaf = emission.detach().requires_grad_()
            options: dict[str, Any] = {"convention": convention, "backend": form}
            return torch.autograd.grad(
                hmm_log_likelihood(leaf, transition.detach(), frames, states, **options).sum(), leaf
            )[0]
    with torch.no_grad():
        steps = _steps(emission.detach(), transition.detach(), frames, states, convention)
        return _expectations(steps, *_sweep(steps, form)[1:])[0]


@torch.no_grad()
def hmm_viterbi(
    emission: Tensor,
    transition: Tensor,
    frames: Tensor,
    states: Tensor,
    *,
    convention: Convention = "generative",
    names: Sequence[str] | None = None,
) -> Tensor:
    """Frames per state on the likeliest path: (B, N) int64, at least 1 for real states, 0 beyond, rows sum to `frames`.

    Arguments and errors as `hmm_log_likelihood`. On ties the path stays.
    """
    _check(emission, transition, frames, states, convention, names)
    steps = _steps(emission, transition, frames, states, convention)
    first, same, before = _forward_terms(steps)
    batch, width = first.shape
    best = first.new_full((batch, width + 1), -INFINITY)
    best[:, 1:] = first
    moved = torch.zeros(len(same), batch, width, dtype=torch.bool, device=first.device)
    for t in range(1, len(same)):
        stays, moves = best[:, 1:] + same[t], best[:, :-1] + before[t]
        torch.gt(moves, stays, out=moved[t])
        best[:, 1:] = torch.maximum(stays, moves)
    durations = torch.zeros(batch, width, dtype=torch.int64, device=first.device)
    at = (states - 1)[:, None]
    for t in range(len(same) - 1, -1, -1):
        inside = (t < frames)[:, None]
        durations.scatter_add_(1, at, inside.long())
        at = at - (inside & moved[t].gather(1, at)).long()
    return durations


def feasible(frames: Tensor, states: Tensor, time: int, width: int) -> Tensor:
    """(B, time, width) bool: whether some path from the first to the last state visits state n at frame t."""
    t = torch.arange(time, device=frames.device)[:, None]
    n = torch.arange(width, device=frames.device)
    left = (states[:, None, None] - 1 - n) - (frames[:, None, None] - 1 - t)
    return (n <= t) & (left <= 0) & (n < states[:, None, None]) & (t < frames[:, None, None])


def readable(frames: Tensor, states: Tensor, time: int, width: int) -> Tensor:
    """(B, time, width) bool: pairs of which either convention reads the transition.

    In the published one, frame t decides about leaving the state of frame t-1, where the path may be no longer.
    """
    inside = feasible(frames, states, time, width)
    left = F.pad(inside[:, :-1], (0, 0, 1, 0))
    return inside | (left & (torch.arange(time, device=frames.device) < frames[:, None])[..., None])


def _name(names: Sequence[str] | None, row: int) -> str:
    return f"utterance {row}" if names is None else f"utterance '{names[row]}'"


def _check(
    emission: Tensor, transition: Tensor, frames: Tensor, states: Tensor, convention: str, names: Sequence[str] | None
) -> None:
    if convention not in get_args(Convention):
        raise ValueError(f"hmm: convention {convention!r} is not one of {', '.join(get_args(Convention))}")
    if emission.dim() != 3 or emission.shape != transition.shape or 0 in emission.shape:
        raise ValueError(
            "hmm: need emission and transition of one shape (B, T, N), none of them 0, "
            f"got {tuple(emission.shape)} and {tuple(transition.shape)}"
        )
    if emission.dtype != transition.dtype or emission.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"hmm: emission and transition must both be float32 or float64, got {emission.dtype}, {transition.dtype}"
        )
    batch, time, width = emission.shape
    if frames.shape != (batch,) or states.shape != (batch,) or frames.is_floating_point() or states.is_floating_point():
        raise ValueError(
            f"hmm: frames and states must be integers of shape ({batch},), "
            f"got {frames.dtype} {tuple(frames.shape)} and {states.dtype} {tuple(states.shape)}"
        )
    wrong = (frames < states) | (states < 1) | (frames > time) | (states > width)
    if not bool(wrong.any()):
        return
    row = int(wrong.nonzero()[0])
    count, height = int(frames[row]), int(states[row])
    if 1 <= height <= width and count <= time:
        raise ValueError(
            f"hmm: {_name(names, row)} has {count} frames for {height} states and no state may be skipped; leave it "
            "out, or use fewer states a symbol or fewer frames a step"
        )
    raise ValueError(
        f"hmm: {_name(names, row)} has {count} frames and {height} states, outside operands of {time} × {width}"
    )


class _Steps(NamedTuple):
    """Checked operands. logit (B, T, N) is what decides the move INTO frame t; frame 0 is not read."""

    emission: Tensor
    logit: Tensor
    exit: Tensor
    frames: Tensor
    states: Tensor
    inside: Tensor  # feasible (B, T, N)


def _steps(emission: Tensor, transition: Tensor, frames: Tensor, states: Tensor, convention: Convention) -> _Steps:
    logit = transition
    if convention == "generative":
        logit = torch.cat([transition[:, :1], transition[:, :-1]], 1)
    rows = torch.arange(len(frames), device=emission.device)
    leave = transition[rows, frames - 1, states - 1]
    inside = feasible(frames, states, emission.shape[1], emission.shape[2])
    return _Steps(emission, logit, leave, frames, states, inside)


def _by_time(steps: _Steps, x: Tensor) -> Tensor:
    """Time first, −inf where no path goes; frames after the end are left to the caller."""
    return x.masked_fill(~steps.inside, -INFINITY).transpose(0, 1)


def _hold(steps: _Steps, same: Tensor) -> Tensor:
    """Stand still after a row's end: adding 0 keeps every state as it is."""
    over = torch.arange(same.shape[0], device=same.device)[:, None] >= steps.frames
    return same.masked_fill(over[..., None], 0.0)


def _forward_terms(steps: _Steps) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights of frame 0 (B, N); what staying in and what moving into each state adds, both (T, B, N)."""
    # A state that is reached for the first time cannot have been stayed in, and its logit may not be known.
    known = F.pad(steps.inside[:, :-1], (0, 0, 1, 0))
    stays = F.logsigmoid(-steps.logit).masked_fill(~known, -INFINITY)
    same = _hold(steps, _by_time(steps, steps.emission + stays))
    entering = F.pad(F.logsigmoid(steps.logit[..., :-1]), (1, 0), value=-INFINITY)
    first = _by_time(steps, steps.emission)[0]
    return first, same, _by_time(steps, steps.emission + entering)


def _backward_terms(steps: _Steps) -> tuple[Tensor, Tensor, Tensor]:
    """The same of the recursion against time, with frames and states counted from each row's end.

    b'_t(n) = b_t(n) + log-sum of (b'_{t+1}(n), stay) and (b'_{t+1}(n+1), move): with both indices reversed it has the
    form of the forward recursion, except that the move's weight is that of the state it arrives in here.
    """
    logit = torch.cat([steps.logit[:, 1:], steps.logit[:, -1:]], 1)
    emission, logit = _turn(steps, torch.stack([steps.emission, logit], -1)).unbind(-1)
    # What is feasible is so from either end: the mask is its own mirror image.
    mirrored = steps._replace(emission=emission, logit=logit)
    same = _hold(mirrored, _by_time(mirrored, emission + F.logsigmoid(-logit)))
    return _by_time(mirrored, emission)[0], same, _by_time(mirrored, emission + F.logsigmoid(logit))


def _turn(steps: _Steps, x: Tensor) -> Tensor:
    """(B, T, N, ...) with each row's real frames and states in reverse; what lies beyond repeats."""
    batch, time, width = x.shape[:3]
    row = torch.arange(batch, device=x.device)[:, None, None]
    t = (steps.frames[:, None] - 1 - torch.arange(time, device=x.device)).clamp(min=0)
    n = (steps.states[:, None] - 1 - torch.arange(width, device=x.device)).clamp(min=0)
    return x[row, t[:, :, None], n[:, None, :]]


def _scan(first: Tensor, same: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised log-weights (T, R, N) whose maximum is 0 in every row, and the (T, R) that normalising took away."""
    time, rows, width = same.shape
    # A leading column of −inf stands for "before the first state": moving in is a view shifted by one.
    weights = first.new_full((time, rows, width + 1), -INFINITY)
    taken = first.new_empty(time, rows, 1)
    weights[0, :, 1:2] = first[:, :1]
    state, shifted = weights[..., 1:].unbind(0), weights[..., :-1].unbind(0)
    scratch, largest = torch.empty_like(first), taken.unbind(0)
    stays, moves = same.unbind(0), before.unbind(0)
    torch.amax(state[0], 1, keepdim=True, out=largest[0])
    state[0].sub_(largest[0])
    for t in range(1, time):
        now = state[t]
        torch.add(state[t - 1], stays[t], out=now)
        torch.add(shifted[t - 1], moves[t], out=scratch)
        torch.logaddexp(now, scratch, out=now)
        torch.amax(now, 1, keepdim=True, out=largest[t])
        now.sub_(largest[t])
    return weights[..., 1:], taken[..., 0]


def _sweep(steps: _Steps, form: str, both: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """L (B,), and normalised a_t and b'_t (B, T, N) of real frames; b' is empty unless `both`."""
    if form == "triton":
        from melstate.kernels.hmm_triton import sweep_triton

        alpha, taken, beta = sweep_triton(steps.emission, steps.logit, steps.frames, steps.states, both=both)
    else:
        batch = len(steps.frames)
        terms = _forward_terms(steps)
        if both:
            terms = tuple(torch.cat(pair, -2) for pair in zip(terms, _backward_terms(steps), strict=True))  # type: ignore[assignment]
        weights, taken = _scan(*terms)
        alpha, taken = weights[:, :batch].transpose(0, 1), taken[:, :batch].T
        beta = _turn(steps, weights[:, batch:].transpose(0, 1)) if both else weights[:0]
    rows = torch.arange(len(steps.frames), device=alpha.device)
    last = alpha[rows, steps.frames - 1, steps.states - 1] + F.logsigmoid(steps.exit)
    real = torch.arange(taken.shape[1], device=taken.device) < steps.frames[:, None]
    total = torch.where(real, taken, 0.0).double().sum(1) + last.double()
    return total.to(alpha.dtype), alpha, beta


def _expectations(steps: _Steps, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors of states (B, T, N), of staying and of moving on into frames 1 … T-1 (B, T-1, N).

    Each frame's are normalised by themselves, so that rounding along the sweeps cannot make them sum to anything but 1.
    """
    inside = steps.inside
    real = (torch.arange(alpha.shape[1], device=alpha.device) < steps.frames[:, None])[..., None]
    score = (alpha + beta - steps.emission).masked_fill(~inside, -INFINITY).masked_fill(~real, 0.0)
    state = score.softmax(-1).masked_fill(~inside, 0.0)
    logit, before, after = steps.logit[:, 1:], alpha[:, :-1], beta[:, 1:]
    stays = inside[:, :-1] & inside[:, 1:]
    moves = F.pad(inside[:, :-1, :-1] & inside[:, 1:, 1:], (0, 1))
    stay = (before + F.logsigmoid(-logit) + after).masked_fill(~stays, -INFINITY)
    entered = F.pad(after[..., 1:], (0, 1), value=-INFINITY)
    move = (before + F.logsigmoid(logit) + entered).masked_fill(~moves, -INFINITY)
    total = torch.logaddexp(stay.logsumexp(-1, keepdim=True), move.logsumexp(-1, keepdim=True))
    total = total.masked_fill(~real[:, 1:], 0.0)
    return state, (stay - total).exp(), (move - total).exp()


class _LogLikelihood(torch.autograd.Function):
    """After both sweeps the gradient is known in closed form: dL/db = posterior, dL/dv = moves (1-p) − stays p."""

    @staticmethod
    def forward(
        ctx: Any,
        emission: Tensor,
        transition: Tensor,
        frames: Tensor,
        states: Tensor,
        convention: Convention,
        form: str,
    ) -> Tensor:
        steps = _steps(emission, transition, frames, states, convention)
        wanted = any(ctx.needs_input_grad)
        total, alpha, beta = _sweep(steps, form, both=wanted)
        if wanted:
            state, stay, move = _expectations(steps, alpha, beta)
            logit = steps.logit[:, 1:]
            slope = move * torch.sigmoid(-logit) - stay * torch.sigmoid(logit)
            # Padding may hold anything, NaN included.
            slope = torch.where(stay + move > 0, slope, 0.0)
            slope = F.pad(slope, (0, 0, 0, 1) if convention == "generative" else (0, 0, 1, 0))
            rows = torch.arange(len(frames), device=emission.device)
            slope[rows, frames - 1, states - 1] += torch.sigmoid(-steps.exit)
            ctx.save_for_backward(state, slope)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        state, slope = ctx.saved_tensors
        grad = grad[:, None, None]
        return grad * state, grad * slope, None, None, None, None
