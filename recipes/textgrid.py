"""Praat's TextGrid: tiers of labelled intervals without gaps, in the long text format, UTF-8.

Source: the Praat manual, "TextGrid file formats".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from melstate.tts.audio import Span
from melstate.vocoders.checkpoint import write_atomic


def intervals(spans: Sequence[Span], seconds: float) -> list[Span]:
    """Spans with empty ones between, before and after them, so that they cover 0…seconds without a gap.

    Raises: ValueError: a span ends before it starts, overlaps the one before, or lies outside.
    """
    filled: list[Span] = []
    clock = 0.0
    for span in spans:
        if not clock <= span.start < span.end <= seconds:
            raise ValueError(
                f"interval {span.text!r} from {span.start:g} to {span.end:g} s does not fit after {clock:g} s "
                f"of {seconds:g} s"
            )
        if span.start > clock:
            filled.append(Span("", clock, span.start))
        filled.append(span)
        clock = span.end
    if clock < seconds:
        filled.append(Span("", clock, seconds))
    return filled


def write(path: str | Path, tiers: Mapping[str, Sequence[Span]], seconds: float) -> None:
    """Write interval tiers by name; what no span covers is an interval without a label.

    Raises: ValueError: no tier, `seconds` is not positive, or as `intervals`. OSError: the file cannot be written.
    """
    write_atomic(path, text(tiers, seconds).encode())


def text(tiers: Mapping[str, Sequence[Span]], seconds: float) -> str:
    """The file's contents; see `write`."""
    if not tiers or not seconds > 0:
        raise ValueError(f"a TextGrid needs a tier and a length, got {len(tiers)} tiers over {seconds:g} s")
    end = _number(seconds)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, spans) in enumerate(tiers.items(), start=1):
        filled = intervals(spans, seconds)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(filled)}"]
        for place, span in enumerate(filled, start=1):
            lines.append(f"        intervals [{place}]:")
            lines += [f"            xmin = {_number(span.start)}", f"            xmax = {_number(span.end)}"]
            lines.append(f"            text = {_quoted(span.text)}")
    return "\n".join(lines) + "\n"


def _number(seconds: float) -> str:
    """The shortest decimals that read back as the same number, so that neighbours meet; never an exponent."""
    return format(Decimal(repr(float(seconds))), "f").removesuffix(".0")


def _quoted(label: str) -> str:
    """A quote is written twice."""
    return '"' + label.replace('"', '""') + '"'
