"""What was heard: words with times, probabilities and speakers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """text; start, end in seconds of the recording; probability in [0, 1]; speaker 0, 1, … by appearance, or None."""

    text: str
    start: float
    end: float
    probability: float
    speaker: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "probability": round(self.probability, 4),
            "speaker": self.speaker,
        }


@dataclass(frozen=True)
class Segment:
    """Words between two pauses, at least one, by one speaker if speakers are told apart."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end

    @property
    def speaker(self) -> int | None:
        return self.words[0].speaker

    def to_dict(self) -> dict[str, Any]:
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "text": self.text,
            "speaker": self.speaker,
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True)
class Transcript:
    """A whole recording. seconds: its length."""

    segments: tuple[Segment, ...]
    seconds: float

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)
