"""The arguments of `synthesize`, checked before anything is imported or opened."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from melstate.vocoders.command import Parser

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
PICTURES = (".png", ".svg", ".pdf")
TIMES = (".srt", ".json")
# The limits of melstate.tts.acoustic.Controls, which would import torch.
RANGES = {
    "speed": (0.25, 4),
    "pitch": (-12, 12),
    "energy": (-20, 20),
    "pause": (0, 10),
    "variation": (0, 3),
    "pitch_sd": (-3, 3),
    "rate_sd": (-3, 3),
    "energy_sd": (-3, 3),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises Problem: a mistake in the arguments. SystemExit: --help or --version was printed."""
    parser = Parser(
        prog="synthesize",
        description="Speak text, offline, on a CPU.",
        epilog="Exit codes: 2 usage, 3 bad input, 4 missing or broken voice, 5 disk, memory or device. "
        "Write words in phones as [[HH AH0 L OW1]].",
    )
    add = parser.add_argument
    add("text", nargs="?", metavar="TEXT", help="what to say; - reads standard input")
    add("-f", "--input-file", metavar="FILE", help="read the text from a UTF-8 file")
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="wav, flac, ogg or mp3 by suffix, replaced if it exists; - writes raw 16-bit mono PCM to standard output "
        "as it is made. Without -o the file is named after the text (hello-world.wav, or hello-world-2.wav if taken)",
    )
    add("--voice", default="kathleen", metavar="NAME", help="a shipped voice, or the path of a voice folder (with a /)")
    add("--model", metavar="NAME", help="which of the voice's acoustic models speaks (see --list-voices)")
    add("--list-voices", action="store_true", help="list the shipped voices, their licences and models")
    for name, text in (
        ("speed", "1 is the voice's own rate"),
        ("pitch", "semitones up or down"),
        ("energy", "decibels up or down"),
        ("pause", "factor on silences"),
        ("variation", "0 reads flat, 1 is the voice's own spread"),
        ("pitch_sd", "mean pitch in standard deviations of the recordings, of a neural HMM"),
        ("rate_sd", "speaking rate, likewise"),
        ("energy_sd", "energy, likewise"),
    ):
        low, high = RANGES[name]
        add(
            f"--{name.replace('_', '-')}",
            type=_number(low, high),
            default=0.0 if name.endswith("_sd") else None,
            metavar="X",
            help=f"{text}; {low:g} to {high:g}",
        )
    add("--seed", type=_whole(0, 2**32 - 1), default=0, metavar="N", help="same seed, same audio (default 0)")
    add("--play", action="store_true", help="play it; without -o no file is written")
    add("--plot", metavar="FILE", help="draw waveform, mel and phones over time (.png, .svg or .pdf)")
    add(
        "--timestamps",
        metavar="FILE",
        help="write subtitles (.srt) or the times of sentences, words and phones (.json) as the speech is made",
    )
    add("--json", action="store_true", help="print the result, with the times of words and phones, as JSON")
    add("--device", default="cpu", metavar="NAME", help="cpu (default), cuda, cuda:1, …")
    parser.add_threads()
    add("--lexicon", metavar="FILE", help="your own pronunciations: lines of WORD, spaces, PHONES")
    parser.add_version()
    args = parser.parse_args(argv)
    if args.list_voices:
        return args
    if args.text is not None and args.input_file is not None:
        parser.error("give TEXT or -f FILE, not both")
    if args.text is None and args.input_file is None:
        parser.error("nothing to speak: give TEXT, - for standard input, or -f FILE")
    if args.output == "-" and sys.stdout.isatty():
        parser.error("-o - writes raw audio, which a terminal cannot show; pipe it somewhere")
    if args.output not in (None, "-") and Path(args.output).suffix.lower() not in SUFFIXES:
        parser.error(f"-o {args.output}: unknown suffix; use one of {', '.join(SUFFIXES)}")
    if args.plot is not None and Path(args.plot).suffix.lower() not in PICTURES:
        parser.error(f"--plot {args.plot}: unknown suffix; use one of {', '.join(PICTURES)}")
    if args.timestamps is not None and Path(args.timestamps).suffix.lower() not in TIMES:
        parser.error(f"--timestamps {args.timestamps}: unknown suffix; use one of {', '.join(TIMES)}")
    return args


def _number(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low:g} to {high:g}")
        return value

    return number


def _whole(low: int, high: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not re.fullmatch("[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number in {low} to {high}")
        return int(text)

    return whole
