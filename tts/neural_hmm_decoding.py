"""A neural HMM's walk through its states, one group of frames at a time, in a state of constant size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.kernels.emission import gaussian
from melstate.tts.acoustic import Controls, SpeechWarning
from melstate.tts.text import symbols as table

if TYPE_CHECKING:
    from melstate.tts.neural_hmm import NeuralHMM

LONGEST = 172.0  # frames of one state that are believed, before the user's factors: two seconds


class LongSymbolWarning(SpeechWarning):
    """A symbol did not end by itself and was ended at the cap."""


class DecodeState(NamedTuple):
    """All that decoding remembers, the same size after any number of frames.

    mixer: the mixer's state; last (B, D): the group of frames before, normalised; place (B,): the state to speak next,
    the number of states when done; survival (B,): log-probability of still being in it; age (B,): groups spent in it.
    """

    mixer: Any
    last: Tensor
    place: Tensor
    survival: Tensor
    age: Tensor


def decode(
    model: NeuralHMM,
    sentences: Sequence[Sequence[int]],
    prosody: Sequence[float],
    controls: Controls,
    generator: torch.Generator | None,
    durations: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sentences side by side, step by step: normalised groups of frames (B, D) and their states (B,), past the last
    when done.

    Args:
        prosody: mean log F0, symbols a frame (in logs) and energy, in corpus deviations.
        controls: of which speed, pause and variation are read here.
        generator: of the prenet's dropout, sampled emissions and sampled durations.
        durations: "quantile" ends a state at the model's threshold, "sampled" draws its end.
    Raises: ValueError: no symbols, ids outside the table, or unknown `durations`.
    Warns: LongSymbolWarning.
    """
    if durations not in ("quantile", "sampled"):
        raise ValueError(f"durations must be 'quantile' or 'sampled', got {durations!r}")
    ids, lengths = model.spoken_ids(sentences, model.go.device)
    by_state = model.by_state(ids, lengths, torch.tensor([prosody] * len(sentences), device=ids.device))
    rate = torch.where(model.marks(ids), controls.speed / max(controls.pause, 1e-3), controls.speed)
    rate = rate.repeat_interleave(model.states, 1)
    count = lengths * model.states
    state = start(model, len(sentences))
    temperature = model.temperature * controls.variation
    cut: list[set[int]] = [set() for _ in sentences]
    while bool((state.place < count).any()):
        index = state.place
        at = torch.minimum(index, count - 1)[:, None]
        here = by_state.gather(1, at[..., None].expand(-1, -1, by_state.shape[2]))[:, 0]
        state, capped = step(model, state, here, rate.gather(1, at)[:, 0], temperature, durations, generator)
        for row in (capped & (index < count)).nonzero()[:, 0].tolist():
            cut[row].add(int(index[row]) // model.states)
        yield state.last, index
    for phones, where in zip(sentences, cut, strict=True):
        if where:
            names = ", ".join(f"{i} ({_symbol(phones[i])})" for i in sorted(where))
            warnings.warn(
                f"symbol {names} of {len(phones)} had not ended after {LONGEST:g} frames a state at plain speed "
                "and was cut there; all symbols were spoken",
                LongSymbolWarning,
                stacklevel=3,
            )


def start(model: NeuralHMM, rows: int) -> DecodeState:
    """Before the first frame of `rows` sentences."""
    zeros = model.go.new_zeros(rows)
    return DecodeState(model.mixer.init_state(rows), model.go.expand(rows, -1), zeros.long(), zeros, zeros.long())


def step(
    model: NeuralHMM,
    state: DecodeState,
    here: Tensor,
    rate: Tensor,
    temperature: float,
    durations: str,
    generator: torch.Generator | None,
) -> tuple[DecodeState, Tensor]:
    """One group of frames of the states whose first-layer terms are `here` (B, output); which hit the cap."""
    device = here.device

    def draw(function: Any, *shape: int) -> Tensor:
        return function(*shape, generator=generator, device=generator.device if generator else device).to(device)

    entered = model.enter(model.prenet(state.last, dropout=True, generator=generator))
    context, mixed = model.mixer(entered[:, None], state.mixer)
    mean, std, logit = gaussian(model.out(F.relu(model.from_past(context[:, 0]) + here)).float(), model.floor)
    spoken = mean + temperature * std * draw(torch.randn, *mean.shape) if temperature else mean
    # A rate r turns the probability of staying, s, into s^r: durations shrink by about r, for any s.
    stay = rate * F.logsigmoid(-logit)
    survival, age = state.survival + stay, state.age + 1
    if durations == "quantile":
        ends = survival < math.log(model.threshold)
    else:
        ends = draw(torch.rand, len(stay)) >= stay.exp()
    capped = ~ends & (age * model.reduction * rate >= LONGEST)
    moves = ends | capped
    kept = (~moves).to(survival.dtype)
    return DecodeState(mixed, spoken, state.place + moves, survival * kept, age * ~moves), capped


def _symbol(index: int) -> str:
    return table.SYMBOLS[index] if 0 <= index < len(table.SYMBOLS) else str(index)
