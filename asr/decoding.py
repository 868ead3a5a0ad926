"""How text is found: the settings a recogniser's folder may carry."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("words", "ctc", "striding")


@dataclass(frozen=True)
class Decoding:
    """How text is found.

    Attributes:
        method: "words": a search over phones through a tree of pronunciations, with a language model over words;
            "ctc": a CTC beam over pieces of words, with language model; the readings of both are weighed by the
            attention decoder (`beam_listener`); "striding": the attention decoder alone, through a window that moves
            (`striding_listener`).
        width: hypotheses in the beam; `words` wants about 100.
        language: weight of the language model in the search. bonus: added for every word.
        final_language, final_bonus: those when the best readings are weighed; None: as in the search.
        attention: weight of the decoder against CTC when a segment's readings are weighed; 0 leaves it out.
        pieces: weight of the pieces' CTC against the phones' when readings found by `words` are weighed.
        readings: how many are weighed.
        window: seconds that the striding decoder sees at once.
        pause: seconds without speech that end a segment. longest: seconds after which one ends anyhow.
        edge: seconds of near silence that are heard before the first sample and after the last, in very short
            recordings of noise like theirs: clips cut at their words' edges sound unlike all that was learned from.
            Longer edges push short words across the end of the first chunk, where they are heard worse.
        quiet: log-mel that the loudest band must reach for a frame to count as sound at all.
        sure: segments that `words` found by phones are noise if their words are less probable on average.
        agreed: segments of every method are noise if their pieces are less probable on average.
        same_voice: cosine from which two stretches are by one speaker.
    Raises: ValueError: unknown method, an edge beyond 0 to 10 seconds, or a window shorter than a second.
    """

    method: str = "ctc"
    width: int = 16
    language: float = 0.5
    bonus: float = 1.0
    final_language: float | None = None
    final_bonus: float | None = None
    attention: float = 0.4
    pieces: float = 0.0
    readings: int = 8
    window: float = 16.0
    pause: float = 0.6
    longest: float = 20.0
    edge: float = 0.2
    quiet: float = -8.5
    sure: float = 0.25
    agreed: float = 0.08
    same_voice: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"decoding: method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not 0.0 <= self.edge <= 10.0:
            raise ValueError(f"decoding: edge must be from 0 to 10 seconds, got {self.edge}")
        if self.window < 1.0:
            raise ValueError(f"decoding: window must be at least 1 second, got {self.window}")
