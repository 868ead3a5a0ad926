"""`transcribe`: the command that listens.

torch is imported only after the arguments have been found good and the files are there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from melstate.asr import package
from melstate.asr.decoding import METHODS
from melstate.asr.output import FORMATS, Writer, clock
from melstate.vocoders.command import INPUT, MODEL, RESOURCES, Parser, Problem, as_process, run, set_threads

if TYPE_CHECKING:
    from melstate.asr.recognizer import Recognizer


def command() -> NoReturn:
    as_process(main)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run("transcribe", lambda: _listen(parse(argv)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises Problem: a mistake in the arguments. SystemExit: --help or --version was printed."""
    parser = Parser(
        prog="transcribe",
        description="Write down what is said, offline, on a CPU, in constant memory.",
        epilog="Exit codes: 2 usage, 3 bad input, 4 missing or broken model, 5 disk, memory or device.",
    )
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="wav, flac, ogg or mp3 of any rate and length; - is standard input")
    add("-f", "--format", choices=FORMATS, help="txt (default); srt, vtt: subtitles; tsv; json; rttm: who spoke when")
    add("-o", "--output", metavar="FILE", help="write there instead of standard output; the suffix picks the format")
    add("--words", action="store_true", help="times for every word instead of every segment")
    add("--speakers", action="store_true", help="say who speaks: speaker 1, 2, … in order of appearance")
    add("--stream", action="store_true", help="show words on standard error while they are still uncertain")
    add(
        "--model", default="default", metavar="NAME", help="a shipped model, or the path of a model's folder (with a /)"
    )
    add(
        "--method",
        choices=METHODS,
        help="words: search for the likeliest words by their phones; ctc: by pieces of words; striding: let attention "
        "write it down; the model's own by default",
    )
    add("--device", default="cpu", metavar="NAME", help="cpu (default), cuda, cuda:1, …")
    parser.add_threads()
    add("--list-models", action="store_true", help="list the shipped models and their licences")
    add("--quiet", action="store_true", help="no progress on standard error")
    parser.add_version()
    args = parser.parse_args(argv)
    if args.list_models:
        return args
    if not args.files:
        parser.error("nothing to listen to: give FILE … or - for standard input")
    if args.files.count("-") > 1:
        parser.error("standard input can be read once; give - once")
    suffix = Path(args.output).suffix.lstrip(".").lower() if args.output else ""
    if args.output and args.format is None and suffix not in FORMATS:
        parser.error(f"-o {args.output}: unknown suffix; use one of {', '.join(FORMATS)} or give --format")
    args.format = args.format or suffix or "txt"
    if args.format in ("srt", "vtt") and len(args.files) > 1:
        parser.error(f"{args.format} holds one recording; transcribe the files one by one")
    return args


def _listen(args: argparse.Namespace) -> None:
    if args.list_models:
        for name in package.names():
            manifest = package.read(package.SHIPPED / name)
            print(f"{name}  {manifest.language}  {manifest.licence}  {manifest.description}")
        return
    for name in args.files:
        if name != "-" and not Path(name).is_file():
            raise Problem(INPUT, f"{name}: no such file")
    if args.output and not Path(args.output).resolve().parent.is_dir():
        raise Problem(RESOURCES, f"{Path(args.output).parent}: no such folder to write to")
    try:
        package.find(args.model)
    except package.ModelError as error:
        raise Problem(MODEL, str(error)) from error
    recognizer = _load(args)
    if args.speakers and not recognizer.can_tell_speakers:
        raise Problem(MODEL, f"model {args.model!r} cannot tell speakers apart")
    if args.method:
        try:
            recognizer.check_method(args.method)
        except ValueError as error:
            raise Problem(MODEL, f"model {args.model!r}: {error}") from error
    with _output(args.output) as out:
        for name in args.files:
            _one(args, recognizer, name, out)


def _load(args: argparse.Namespace) -> Recognizer:
    from melstate.asr.recognizer import Recognizer

    set_threads(args.threads)
    try:
        return Recognizer.load(args.model, args.device)
    except package.ModelError as error:
        raise Problem(MODEL, str(error)) from error
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises the second
        raise Problem(RESOURCES, f"--device {args.device}: {str(error).splitlines()[0]}") from error


def _one(args: argparse.Namespace, recognizer: Recognizer, name: str, out: IO[str]) -> None:
    """Transcribes one recording, writing as it goes."""
    from melstate.asr.sound import SoundError, open_sound

    writer = Writer(name, args.format, words=args.words)
    progress = _Progress(name, args)

    def write(text: str) -> None:
        if text:
            try:
                out.write(text)
                out.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise Problem(RESOURCES, f"{args.output or 'standard output'}: {error.strerror or error}") from error

    try:
        with open_sound(sys.stdin.buffer if name == "-" else Path(name)) as sound:
            listener = recognizer.listener(sound.sample_rate, speakers=args.speakers, method=args.method)
            write(writer.start())
            damage: SoundError | None = None
            try:
                for block in sound.blocks:
                    for segment in listener.feed(block):
                        progress.clear()
                        write(writer.segment(segment))
                    progress.show(listener.seconds, sound.seconds, listener.partial if args.stream else "")
            except SoundError as error:  # what was said before is written all the same
                damage = error
            for segment in listener.finish():
                progress.clear()
                write(writer.segment(segment))
            write(writer.end(listener.seconds))
            if damage is not None:
                raise damage
            progress.done(listener.seconds)
    except SoundError as error:
        progress.clear()
        raise Problem(INPUT, str(error)) from error


class _Progress:
    """One line on standard error that is written over: how far, how fast, and with --stream the uncertain words."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.stream, self.width = name, args.stream, 0
        self.terminal = sys.stderr.isatty()
        self.active = not args.quiet and (self.terminal or args.stream)
        self.began = self.shown = time.perf_counter()
        self.last = ""

    def show(self, seconds: float, total: float | None, partial: str) -> None:
        if not self.active:
            return
        now = time.perf_counter()
        if self.stream:
            if partial == self.last:
                return
            self.last = partial
            line = f"… {partial}"
        elif now - self.shown < 0.5:
            return
        else:
            of = f" of {clock(total)[:8]}" if total else ""
            line = f"{self.name}: {clock(seconds)[:8]}{of}, {seconds / max(now - self.began, 1e-6):.0f}x real time"
        self.shown = now
        if self.terminal:
            line = line[-(_columns() - 1) :]
            sys.stderr.write("\r" + line.ljust(self.width))
            self.width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        if self.active and self.terminal and self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0
        self.last = ""

    def done(self, seconds: float) -> None:
        self.clear()
        if self.active and not self.stream:
            took = max(time.perf_counter() - self.began, 1e-6)
            print(
                f"{self.name}: {clock(seconds)[:8]} in {took:.1f} s, {seconds / took:.0f}x real time", file=sys.stderr
            )


def _columns() -> int:
    import shutil

    return max(20, shutil.get_terminal_size().columns)


@contextmanager
def _output(path: str | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    try:
        stream = open(path, "w", encoding="utf-8")
    except OSError as error:
        raise Problem(RESOURCES, f"{path}: cannot be written: {error.strerror or error}") from error
    with stream:
        yield stream


if __name__ == "__main__":
    command()
