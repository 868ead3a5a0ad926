"""Transcripts as text formats, segment by segment: txt, srt, vtt, tsv, json, rttm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from melstate.asr.transcript import Segment, Word

FORMATS = ("txt", "srt", "vtt", "tsv", "json", "rttm")


class Writer:
    """Lines of one recording in one format: `start`, then `segment` for each, then `end`.

    Args:
        name: of the recording, for json and rttm.
        kind: one of FORMATS.
        words: a line (or subtitle, or row) for every word instead of every segment; in json the words as well.
    """

    def __init__(self, name: str, kind: str, *, words: bool = False) -> None:
        if kind not in FORMATS:
            raise ValueError(f"format {kind!r} is not one of {', '.join(FORMATS)}")
        self.name, self.kind, self.words = name, kind, words
        self._count = 0

    def start(self) -> str:
        """What comes before the first segment."""
        heads = {"vtt": "WEBVTT\n\n", "tsv": "start\tend\tspeaker\tprobability\ttext\n"}
        if self.kind == "json":
            return f'{{"file": {json.dumps(self.name, ensure_ascii=False)}, "segments": ['
        return heads.get(self.kind, "")

    def segment(self, segment: Segment) -> str:
        """The segment's lines."""
        make: dict[str, Callable[[Segment], str]] = {
            "txt": self._txt,
            "srt": self._subtitles,
            "vtt": self._subtitles,
            "tsv": self._tsv,
            "json": self._json,
            "rttm": self._rttm,
        }
        return make[self.kind](segment)

    def end(self, seconds: float) -> str:
        """What comes after the last segment of a recording of so many seconds."""
        return f'{"" if not self._count else chr(10)}], "seconds": {seconds:.3f}}}\n' if self.kind == "json" else ""

    def _parts(self, segment: Segment) -> Iterator[tuple[Word, str]]:
        """(first word of the part with the part's times and mean probability, its text)."""
        if self.words:
            yield from ((word, word.text) for word in segment.words)
            return
        probability = sum(word.probability for word in segment.words) / len(segment.words)
        yield Word("", segment.start, segment.end, probability, segment.speaker), segment.text

    def _txt(self, segment: Segment) -> str:
        return "".join(f"{_named(part.speaker)}{text}\n" for part, text in self._parts(segment))

    def _subtitles(self, segment: Segment) -> str:
        lines = []
        for part, text in self._parts(segment):
            self._count += 1
            mark = "," if self.kind == "srt" else "."
            head = f"{self._count}\n" if self.kind == "srt" else ""
            times = f"{clock(part.start, mark)} --> {clock(part.end, mark)}"
            lines.append(f"{head}{times}\n{_named(part.speaker)}{text}\n\n")
        return "".join(lines)

    def _tsv(self, segment: Segment) -> str:
        return "".join(
            f"{part.start:.3f}\t{part.end:.3f}\t{'' if part.speaker is None else part.speaker + 1}\t"
            f"{part.probability:.3f}\t{text}\n"
            for part, text in self._parts(segment)
        )

    def _json(self, segment: Segment) -> str:
        self._count += 1
        values = segment.to_dict()
        if not self.words:
            del values["words"]
        return ("" if self._count == 1 else ",") + "\n" + json.dumps(values, ensure_ascii=False)

    def _rttm(self, segment: Segment) -> str:
        # fields of a file are separated by blanks, so names hold none
        name = "_".join(self.name.split()) or "-"
        speaker = f"speaker{1 if segment.speaker is None else segment.speaker + 1}"
        return "".join(
            f"SPEAKER {name} 1 {part.start:.3f} {part.end - part.start:.3f} <NA> <NA> {speaker} <NA> <NA>\n"
            for part, _ in self._parts(segment)
        )


def clock(seconds: float, mark: str = ".") -> str:
    """Seconds as 01:02:03.456."""
    milliseconds = max(0, round(1000 * seconds))
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def _named(speaker: int | None) -> str:
    return "" if speaker is None else f"speaker {speaker + 1}: "
