"""The acoustic-model interface: symbol ids in, log-mel frames out, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from melstate.vocoders.mel import MelConfig


class SpeechWarning(UserWarning):
    """What was spoken is not wholly what was to be spoken."""


class Batch(NamedTuple):
    """Padded training utterances. Lengths tell what is real; padding is 0.

    Attributes:
        phones: (B, N) symbol ids of melstate.tts.text.symbols.
        phone_lengths: (B,).
        mels: (B, n_mels, T) log-mel.
        mel_lengths: (B,) frames.
        log_f0: (B, T) natural log of Hz, interpolated through unvoiced stretches.
        voiced: (B, T) 1.0 where voiced.
        durations: (B, N) frames per symbol from an aligner, summing to mel_lengths; None before alignment.
        speakers: (B,) speaker index, zeros for one speaker.
        ids: utterance names, for messages.
    """

    phones: Tensor
    phone_lengths: Tensor
    mels: Tensor
    mel_lengths: Tensor
    log_f0: Tensor
    voiced: Tensor
    durations: Tensor | None
    speakers: Tensor
    ids: tuple[str, ...]


PROSODY = ("pitch_sd", "rate_sd", "energy_sd")


@dataclass(frozen=True)
class Controls:
    """What a speaker of text may ask for.

    Attributes:
        speed: 1 is the voice's own rate, 2 twice as fast; 0.25–4.
        pitch: semitones up or down; −12–12.
        energy: decibels up or down; −20–20.
        pause: factor on silences at punctuation; 0–10.
        variation: 0 reads everything alike; 1 the voice's own spread of pitch; 0–3.
        pitch_sd, rate_sd, energy_sd: how the speaker would say a sentence whose mean log F0, symbols a second and mean
            log energy lie so many standard deviations of the recordings from their average; −3–3, of models with
            `prosodic`.
    """

    speed: float = 1.0
    pitch: float = 0.0
    energy: float = 0.0
    pause: float = 1.0
    variation: float = 1.0
    pitch_sd: float = 0.0
    rate_sd: float = 0.0
    energy_sd: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "speed": (0.25, 4.0),
            "pitch": (-12.0, 12.0),
            "energy": (-20.0, 20.0),
            "pause": (0.0, 10.0),
            "variation": (0.0, 3.0),
            **dict.fromkeys(PROSODY, (-3.0, 3.0)),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in {low:g}..{high:g}, got {getattr(self, name):g}")


class Frames(NamedTuple):
    """Consecutive frames of one utterance.

    Attributes:
        mel: (n_mels, t) log-mel.
        f0: (t,) Hz, 0 = unvoiced; None from models that do not predict it.
        symbol: (t,) index into the input symbols of the one being spoken.
    """

    mel: Tensor
    f0: Tensor | None
    symbol: Tensor


class AcousticModel(nn.Module):
    """Symbols → mel.

    Attributes:
        kind: name under which checkpoints and configs know the class.
        config: JSON-able keyword arguments that rebuild the module: type(self)(**self.config).
        mel: the mel contract it was trained for.
        prosodic: whether it was shown whole utterances' prosody and follows `PROSODY`.
        soon: frames to hand on first where it is up to the model, which makes frames so slowly that to wait for more
            would delay the first sound; None if it makes them faster than a vocoder takes them.
    """

    kind: ClassVar[str]
    prosodic: ClassVar[bool] = False
    soon: ClassVar[int | None] = None
    config: dict[str, Any]
    mel: MelConfig

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, unweighted; the recipe weighs and sums them."""
        raise NotImplementedError

    def stream(
        self,
        phones: Sequence[int],
        *,
        controls: Controls = Controls(),
        chunk: int = 32,
        largest: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Frames]:
        """Frames of one sentence, `chunk` or so at a time, doubling up to `largest` or so where that is given: large
        chunks cost less, a small first one comes soon. The concatenation depends on neither."""
        raise NotImplementedError
