"""Lina's decoding, watched: a guard keeps attention from skipping and running back, and what fails is spoken anew.

Groups of frames are decoded in passages of a fixed number of steps. A passage leaves only when it is whole and sound;
one that is not is decoded again from the state before it with other random numbers, at most so many times. So nothing
that was handed out is ever taken back, and what comes out does not depend on how much is asked for at a time.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from melstate.tts.acoustic import SpeechWarning
from melstate.tts.cross_attention import Text
from melstate.tts.levels import draw, expected_level, tempered

if TYPE_CHECKING:
    from melstate.tts.lina import DecoderState, Lina

log = logging.getLogger(__name__)

PASSAGE = 16  # steps
PATIENCE = 1.2  # seconds that one symbol may last before speech counts as stuck
SLOWEST = 0.35  # seconds a symbol on average, above which a sentence counts as endless; read speech has 0.09
HORIZON = 48  # symbols on either side that attention is computed over: the cost of a step is that of a short text
WARMER = 0.2  # added to the temperature at every retry
LONGEST = 160  # symbols, 14 s: from there on a sentence begins anew at its next mark, for none longer was learned from
SHORTEST = 40  # symbols that are worth beginning anew for


class DecodingWarning(SpeechWarning):
    """A sentence had to be decoded again in part, or was cut."""


@dataclass
class Report:
    """What happened while one sentence was decoded; it is logged too, at level INFO.

    Attributes:
        steps: groups of frames handed out.
        held_back, held_on: steps at which the guard kept attention from skipping, and from running back.
        furthest_skip, furthest_return: symbols beyond its last place that attention wanted to go, at most.
        faults: what failed, one line a passage that was decoded again or given up.
        retries: passages decoded again.
        cut: symbols that were not reached, or None.
    """

    steps: int = 0
    held_back: int = 0
    held_on: int = 0
    furthest_skip: float = 0.0
    furthest_return: float = 0.0
    faults: list[str] = field(default_factory=list)
    retries: int = 0
    cut: str | None = None

    def add(self, other: Report) -> None:
        """What happened in the next part of the sentence."""
        self.steps += other.steps
        self.held_back += other.held_back
        self.held_on += other.held_on
        self.furthest_skip = max(self.furthest_skip, other.furthest_skip)
        self.furthest_return = max(self.furthest_return, other.furthest_return)
        self.faults += other.faults
        self.retries += other.retries
        self.cut = other.cut if self.cut is None else self.cut


class Part(NamedTuple):
    """Of a sentence: symbol i of `ids` is the sentence's first + i, and none is beyond its last."""

    ids: list[int]
    first: int
    last: int


def parts(ids: Sequence[int], marks: Sequence[bool]) -> Iterator[Part]:
    """A sentence in parts that end at marks, each with the sentence's first and last symbol around it."""
    start = 0
    for place in range(1, len(ids)):
        if marks[place] and place + 1 - start >= LONGEST and len(ids) - place - 1 >= SHORTEST:
            yield Part([*ids[: bool(start)], *ids[start : place + 1], ids[-1]], max(0, start - 1), place)
            start = place + 1
    yield Part([*ids[: bool(start)], *ids[start:]], max(0, start - 1), len(ids) - 1)


class Place(NamedTuple):
    """Between two steps.

    state: the decoder's; read (1, 1, embedding): the group before; expected: attended place, in symbols; furthest:
    symbol reached; waited: steps since it was; steps: so far.
    """

    state: DecoderState
    read: Tensor
    expected: float
    furthest: int
    waited: int
    steps: int


class Passage(NamedTuple):
    """values: per step (group, channels); symbol: of every frame; pulls: per step what `_step` tells of the guard;
    fault: what went wrong, None if nothing; done: whether the sentence is over."""

    values: list[Tensor]
    symbol: list[int]
    pulls: list[float]
    place: Place
    fault: str | None
    done: bool


def decode(
    model: Lina, text: Text, variation: float, generator: torch.Generator | None, report: Report
) -> Iterator[tuple[Tensor, list[int]]]:
    """A prepared text of one sentence → values (t, channels) and the symbol that each frame speaks, passage by passage.

    Args:
        variation: factor on the temperature.
        report: is filled.
    Raises: RuntimeError: a passage was not finite at every try.
    """
    place = _first(model)
    while True:
        seed = int(torch.randint(2**62, (), generator=generator))
        for attempt in range(model.retries + 1):
            final = attempt == model.retries
            warmth = model.temperature * variation + (WARMER * attempt if attempt else 0.0)
            passage = _passage(model, text, place, torch.Generator().manual_seed(seed + attempt), warmth, final)
            if passage.fault is None:
                break
            report.faults.append(passage.fault)
            report.retries += not final
        if passage.fault is not None and not passage.symbol:
            raise RuntimeError(
                f"lina: {passage.fault}, {model.retries + 1} times; the weights are damaged: export again"
            )
        place = passage.place
        _record(report, passage, model, text)
        if passage.values:
            yield torch.cat(passage.values), passage.symbol
        if passage.done:
            break
    log.info("lina: %s", report)
    if report.faults:
        what = f"; {report.cut}" if report.cut else "; the end was reached"
        warnings.warn(
            f"{'; '.join(dict.fromkeys(report.faults))}: decoded {report.retries} passages again{what}",
            DecodingWarning,
            stacklevel=3,
        )


def _first(model: Lina) -> Place:
    speaker = torch.tensor([model.speaker], device=model.go.device)
    return Place(model.start(speaker), model.go[None, None], 0.0, 0, 0, 0)


def _record(report: Report, passage: Passage, model: Lina, text: Text) -> None:
    report.steps += len(passage.values)
    report.held_back += sum(pull > 0 for pull in passage.pulls)
    report.held_on += sum(pull < 0 for pull in passage.pulls)
    report.furthest_skip = max([report.furthest_skip, *passage.pulls])
    report.furthest_return = max([report.furthest_return, *(-pull for pull in passage.pulls)])
    last = text.inside.shape[1] - 1
    if passage.done and passage.place.furthest < last - 1:
        report.cut = (
            f"cut after symbol {passage.place.furthest} of {last}, at {passage.place.steps * model.group} frames"
        )


def _passage(model: Lina, text: Text, place: Place, generator: torch.Generator, warmth: Tensor, final: bool) -> Passage:
    """Up to PASSAGE steps from `place`. With `final`, faults are mended as well as they can be instead of returned."""
    rate = model.mel.sample_rate / model.mel.hop / model.group  # steps a second
    last = text.inside.shape[1] - 1
    patience, most = math.ceil(PATIENCE * rate), math.ceil((PATIENCE + SLOWEST * (last + 1)) * rate)
    values: list[Tensor] = []
    symbol: list[int] = []
    pulls: list[float] = []
    fault = None
    for _ in range(PASSAGE):
        pushed = final and place.waited > patience
        spoken, stop, place, at, pull = _step(model, text, place, generator, warmth, pushed)
        if spoken is None:
            return Passage([], [], [], place, f"frame {place.steps * model.group} was not finite", False)
        values.append(spoken)
        symbol += at
        pulls.append(pull)
        # The last mark and the END after it are one silence: either may end it.
        over = place.furthest >= last - 1
        found = None
        if stop and over:
            return Passage(values, symbol, pulls, place, fault, True)
        if stop:
            found = f"speech stopped at symbol {place.furthest} of {last}"
        elif place.waited > patience:
            found = (
                "speech went on after the text" if over else f"speech was stuck at symbol {place.furthest} of {last}"
            )
        elif place.steps > most:
            found = f"speech came to symbol {place.furthest} of {last} in {place.steps * model.group} frames"
        if found is not None:
            fault = found
            if not final:
                return Passage(values, symbol, pulls, place, fault, False)
            if place.steps > most or (over and place.waited > patience):
                return Passage(values, symbol, pulls, place, fault, True)
    return Passage(values, symbol, pulls, place, fault, False)


def _step(
    model: Lina, text: Text, place: Place, generator: torch.Generator, warmth: Tensor, pushed: bool
) -> tuple[Tensor | None, bool, Place, list[int], float]:
    """One group: its values (None if they are not finite), whether speech would stop, the place after it, the symbols
    of its frames, and how many symbols off its last place attention was held from going, negative backward.
    `pushed`: attention must leave its symbol."""
    size = text.inside.shape[1]
    low = place.expected - model.back
    if pushed:
        low = max(low, min(math.floor(place.expected) + 1.0, size - 1.0))
    high = max(place.expected + model.ahead, low)
    start = max(0, math.floor(place.expected) - HORIZON)
    near = text.stretch(start, math.ceil(place.expected) + HORIZON)
    index = torch.arange(start, start + near.inside.shape[1], device=near.inside.device)
    allowed = (index >= low) & (index <= high)
    said, state = model(place.read, near, place.state, allowed=allowed[None, None], generator=generator)
    bands = model.mel.n_mels
    values, drawn = [], []
    contour = None
    if model.contour:
        level, chosen = _choose(model.contour_logits(said.known)[0, 0], warmth[bands:], model.top_p, True, generator)
        contour = model.levels.value(level, bands)
        values.append(contour)
        drawn.append(chosen)
    logits = model.mel_logits(said.known, None if contour is None else contour[None, None])[0, 0]
    if not bool(logits.isfinite().all()):
        return None, False, place, [], 0.0
    mean = model.output == "mean"
    level, chosen = _choose(logits, warmth[:bands], model.top_p, mean, generator)
    values.insert(0, model.levels.value(level, 0))
    drawn.insert(0, chosen)
    expected = float((said.attended.weights[0, 0] * index).sum())
    wanted = start + int(said.attended.position[0, 0].argmax())
    pull = wanted - place.expected if wanted > high else wanted - place.expected if wanted < low else 0.0
    furthest = max(place.furthest, min(round(expected), size - 1))
    waited = 0 if furthest > place.furthest else place.waited + 1
    # A step may pass several symbols: its frames share them.
    gone = furthest - place.furthest
    at = [place.furthest + -(-gone * (frame + 1) // model.group) for frame in range(model.group)]
    read = model.read(torch.cat(drawn, 1).view(1, 1, -1))
    return (
        torch.cat(values, 1),
        bool(said.stop[0, 0] > 0),
        Place(state, read, expected, furthest, waited, place.steps + 1),
        at,
        pull,
    )


def _choose(
    logits: Tensor, warmth: Tensor, top_p: float, mean: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Logits (group, channels, levels) → the levels to speak, expected ones if `mean`, and the levels drawn."""
    group, channels, _ = logits.shape
    probabilities = tempered(logits.flatten(0, 1).float(), warmth.repeat(group), top_p)
    uniform = torch.rand(group * channels, generator=generator).to(logits.device)
    drawn = draw(probabilities, uniform)
    level = expected_level(probabilities) if mean else drawn.float()
    return level.view(group, channels), drawn.view(group, channels)
