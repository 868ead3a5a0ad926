"""What a search makes of a stretch of sound, and what every search can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

Layer = Literal["pieces", "phones"]  # of CTC


class Reading(NamedTuple):
    """One way to read a stretch of sound.

    Attributes:
        words: their texts. units: the pieces or phones that each was heard as.
        acoustic: log-probability of those units. language: weighted score of the words, bonuses included.
    """

    words: tuple[str, ...]
    units: tuple[tuple[int, ...], ...]
    acoustic: float
    language: float

    @property
    def score(self) -> float:
        return self.acoustic + self.language

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Search(Protocol):
    """A beam over frames; any split of the frames gives the same hypotheses.

    Attributes:
        layer: whose log-probabilities it goes by.
    """

    layer: ClassVar[Layer]

    def start(self) -> list[Any]:
        """The hypotheses before the first frame."""

    def advance(self, hypotheses: Sequence[Any], log_probs: np.ndarray) -> list[Any]:
        """The best hypotheses after the frames of log_probs (S, units), best first."""

    def readings(self, hypotheses: Sequence[Any]) -> list[Reading]:
        """What was said if it ends here, best first; never empty, no words twice."""
