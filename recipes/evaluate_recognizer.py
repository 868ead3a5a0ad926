"""How well does a recogniser hear people it never heard, and what does it hear where nobody speaks?

    python -m melstate.recipes.evaluate_recognizer ../shared/data --model default --json results.json
    python -m melstate.recipes.evaluate_recognizer ../shared/data --held-out george=runs/no-george/model.safetensors …

speechocean762's 25 development speakers, the digits' own test clips (known speakers, unknown clips), the same after 0
to 0.8 s of silence, digits of speakers that a model was trained without (--held-out), and minutes of silence, noise
and music. Word error rates come with 95 % intervals over speakers; pocketsphinx reads the same audio beside them.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from melstate.asr.scoring import Interval, WordErrors, bootstrap, word_errors
from melstate.asr.tokens import normalize_transcript
from melstate.recipes.data.nonspeech import KINDS, nonspeech
from melstate.recipes.data.recordings import (
    Recording,
    is_digit_test,
    leave_speaker_out,
    partition,
    read_digits,
    read_speechocean,
)
from melstate.recipes.recognizers import read_mean_recognizer, read_recognizer
from melstate.vocoders import wav

PAUSES = tuple(number / 10 for number in range(9))  # seconds; clip k comes after the (k mod 9)th

Hear = Callable[[np.ndarray, int], str]  # samples, sample rate → text


@dataclass
class Heard:
    """What one recogniser made of a set of recordings."""

    name: str
    texts: list[str] = field(default_factory=list)
    errors: list[WordErrors] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    audio_seconds: float = 0.0
    working_seconds: float = 0.0

    @property
    def total(self) -> WordErrors:
        return sum(self.errors, WordErrors())

    def rate(self) -> Interval:
        """WER with its interval: over speakers where there are five or more, else over clips."""
        groups = self.speakers if len(set(self.speakers)) >= 5 else None
        return bootstrap([e.errors for e in self.errors], [e.words for e in self.errors], groups)

    def summary(self) -> dict[str, Any]:
        total, speakers = self.total, len(set(self.speakers))
        return {
            "wer": self.rate()._asdict(),
            "interval_over": "speakers" if speakers >= 5 else "clips",
            "substitutions": total.substitutions,
            "deletions": total.deletions,
            "insertions": total.insertions,
            "words": total.words,
            "clips": len(self.errors),
            "speakers": speakers,
            "real_time_factor": self.working_seconds / max(self.audio_seconds, 1e-9),
        }


def hear(
    name: str,
    recogniser: Hear,
    recordings: Sequence[Recording],
    into: Heard | None = None,
    pauses: Sequence[float] = (0.0,),
) -> Heard:
    """Every recording through a recogniser.

    Args:
        into: goes on with what was heard before.
        pauses: seconds of silence before the first recording, the second and so on, again and again.
    """
    from rich.progress import track

    heard = Heard(name) if into is None else into
    shown = track(recordings, description=name, disable=not sys.stderr.isatty())
    for recording, pause in zip(shown, cycle(pauses), strict=False):
        samples, rate = wav.read(recording.path)
        samples = np.concatenate([np.zeros((round(pause * rate), *samples.shape[1:]), samples.dtype), samples])
        started = time.perf_counter()
        text = normalize_transcript(recogniser(samples, rate))
        heard.working_seconds += time.perf_counter() - started
        heard.audio_seconds += len(samples) / rate
        heard.texts.append(text)
        heard.errors.append(word_errors(normalize_transcript(recording.text), text))
        heard.speakers.append(recording.speaker)
    return heard


def invented(recogniser: Hear, kinds: Iterable[str], minutes: float, piece: float | None) -> dict[str, float]:
    """Words per minute heard in sounds without speech.

    Args:
        piece: seconds given at once; None gives everything at once.
    """
    found = {}
    for kind in kinds:
        audio = nonspeech(kind, 60 * minutes)
        size = len(audio) if piece is None else round(piece * 16000)
        texts = [recogniser(audio[start : start + size], 16000) for start in range(0, len(audio), size)]
        found[kind] = sum(len(normalize_transcript(text).split()) for text in texts) / minutes
    return found


def load(*models: str, like: str | None = None) -> Hear:
    """A recogniser of this project as a function; of several the mean of their weights; weights heard as `like` is."""
    if like is None and len(models) == 1:
        recogniser = read_recognizer(models[0])
    else:
        recogniser = read_mean_recognizer(models, read_recognizer(like) if like else None)
    return lambda samples, rate: recogniser.transcribe(samples, rate).text


def report(
    systems: dict[str, dict[str, Heard]], inventions: dict[str, dict[str, float]], about: dict[str, Any]
) -> dict[str, Any]:
    """Everything measured, JSON-able.

    Args:
        systems: recogniser → set → what was heard. inventions: recogniser → sound → words per minute.
    """
    return {
        "about": about,
        "sets": {name: {part: heard.summary() for part, heard in parts.items()} for name, parts in systems.items()},
        "words_per_minute": inventions,
        "texts": {name: {part: heard.texts for part, heard in parts.items()} for name, parts in systems.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The summary as lines of text."""
    counts = f"{'S':>5} {'D':>5} {'I':>5} {'words':>6}"
    lines = [f"{'recogniser':14} {'set':22} {'WER':>7}  {'95 % interval':17} {counts} {'RTF':>6}"]
    for name, parts in result["sets"].items():
        for part, row in parts.items():
            wer = row["wer"]
            interval = f"{wer['low']:.1%} – {wer['high']:.1%}"
            counts = " ".join(f"{row[key]:5d}" for key in ("substitutions", "deletions", "insertions"))
            lines.append(
                f"{name:14} {part:22} {wer['value']:7.1%}  {interval:17} {counts} {row['words']:6d} "
                f"{row['real_time_factor']:6.3f}"
            )
    for name, sounds in result["words_per_minute"].items():
        lines.append(f"{name:14} words a minute: " + ", ".join(f"{kind} {rate:.1f}" for kind, rate in sounds.items()))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate evaluate-recognizer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", help="folder with speechocean762/ and digits/")
    add("--model", help="a shipped model's name, a recogniser's or a run's folder, or a .safetensors")
    add(
        "--held-out",
        action="append",
        default=[],
        metavar="SPEAKER=MODEL",
        help="a model trained without this digit speaker; of several for one speaker, the mean of their weights",
    )
    add("--like", metavar="MODEL", help="held-out weights are heard with this recogniser's language model and search")
    add("--baseline", choices=("pocketsphinx", "none"), default="pocketsphinx")
    add("--limit", type=int, help="only the first N clips of each speaker")
    add("--minutes", type=float, default=10.0, help="of each sound without speech (default 10; 0 for none)")
    add("--cache", default="runs/evaluate/transcripts.jsonl", help="pocketsphinx' transcripts by content; '' for none")
    add("--json", metavar="FILE", help="write everything measured")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    pairs = [pair.partition("=") for pair in args.held_out]
    if not all(name and model for name, _, model in pairs):
        parser.error("--held-out takes SPEAKER=MODEL")
    grouped: dict[str, list[str]] = {}
    for name, _, model in pairs:
        grouped.setdefault(name, []).append(model)
    if not args.model and not pairs:
        parser.error("nothing to evaluate: give --model or --held-out")
    import torch

    torch.set_num_threads(args.threads)
    try:
        dev = first(read_speechocean(Path(args.data) / "speechocean762", "dev").recordings, args.limit)
        digits = read_digits(Path(args.data) / "digits").recordings
        tested = first(partition(digits, is_digit_test)[1], args.limit)
        own = {name: first(leave_speaker_out(digits, f"digits-{name}")[1], args.limit) for name in grouped}
        recogniser = load(args.model) if args.model else None
        others = {name: load(*models, like=args.like) for name, models in grouped.items()}
    except (ValueError, OSError) as error:
        parser.error(str(error))
    systems: dict[str, dict[str, Heard]] = {"melstate": {}}
    inventions: dict[str, dict[str, float]] = {}
    if recogniser is not None:
        systems["melstate"]["speechocean762 dev"] = hear("speechocean762 dev", recogniser, dev)
        systems["melstate"]["digits test"] = hear("digits test", recogniser, tested)
        systems["melstate"]["digits after silence"] = hear("digits after silence", recogniser, tested, pauses=PAUSES)
        if args.minutes:
            inventions["melstate"] = invented(recogniser, KINDS, args.minutes, None)
    for name, other in others.items():
        done = systems["melstate"].get("digits left out")
        systems["melstate"]["digits left out"] = hear("digits left out", other, own[name], done)
    if args.baseline == "pocketsphinx":
        from melstate.recipes.reader import Reader

        reader = Reader(args.cache or None)
        rows = {"speechocean762 dev": dev, "digits test": tested} if recogniser is not None else {}
        if pairs:
            rows["digits left out"] = [recording for name in own for recording in own[name]]
        systems["pocketsphinx"] = {part: hear(f"pocketsphinx: {part}", reader.read, rows[part]) for part in rows}
        if recogniser is not None:
            systems["pocketsphinx"]["digits after silence"] = hear(
                "pocketsphinx: digits after silence", reader.read, tested, pauses=PAUSES
            )
        if recogniser is not None and args.minutes:
            inventions["pocketsphinx"] = invented(reader.read, KINDS, args.minutes, 10.0)
    about = {
        "command": "melstate evaluate-recognizer " + shlex.join(sys.argv[1:] if argv is None else argv),
        "model": args.model,
        "held_out": args.held_out,
        "like": args.like,
        "minutes_of_each_sound": args.minutes,
        "threads": args.threads,
        "versions": {name: installed(name) for name in ("melstate", "torch", "numpy", "pocketsphinx")},
        "machine": platform.processor() or platform.machine(),
    }
    result = report(systems, inventions, about)
    print(table(result))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def first(recordings: Sequence[Recording], limit: int | None) -> list[Recording]:
    """At most `limit` of each speaker."""
    counts: dict[str, int] = {}
    kept = []
    for recording in recordings:
        counts[recording.speaker] = counts.get(recording.speaker, 0) + 1
        if limit is None or counts[recording.speaker] <= limit:
            kept.append(recording)
    return kept


def installed(name: str) -> str | None:
    """A distribution's version, None where it is not installed."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
