"""`synthesize`: the command that speaks.

torch is imported only after the arguments, the text and voice.yaml have been found good.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from melstate.tts.arguments import RANGES, parse
from melstate.vocoders.command import INPUT, MODEL, RESOURCES, USAGE, Problem, as_process, run, set_threads

if TYPE_CHECKING:
    from melstate.tts.audio import Audio, Span
    from melstate.tts.voice import Voice

LONG_TEXT = 400  # characters from which a progress bar is worth showing
MOST_WARNINGS = 20


def command() -> NoReturn:
    as_process(main)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run("synthesize", lambda: _work(parse(argv)))


def _work(args: argparse.Namespace) -> None:
    if args.list_voices:
        _list_voices(args.json)
    else:
        _speak(args)


def _list_voices(as_json: bool) -> None:
    from melstate.tts import manifest

    try:
        voices = manifest.shipped()
    except manifest.VoiceError as error:
        raise Problem(MODEL, str(error)) from error
    if as_json:
        keys = ("name", "language", "licence", "description")
        print(
            json.dumps([{key: getattr(v, key) for key in keys} | {"models": list(v.models)} for v in voices], indent=2)
        )
        return
    for voice in voices:
        models = f"  (models: {', '.join(voice.models)})" if len(voice.models) > 1 else ""
        print(f"{voice.name}  {voice.language}  {voice.licence}  {voice.description}{models}")


def _speak(args: argparse.Namespace) -> None:
    text = _read_text(args)
    target = _target(args, text)
    _check_voice(args)
    for folder in [Path(path).parent for path in (target, args.plot, args.timestamps) if path is not None]:
        if not folder.is_dir():
            raise Problem(RESOURCES, f"{folder}: no such folder to write to")
    cautions: list[str] = []
    with _warnings_as_lines(cautions):
        started = time.perf_counter()
        voice = _load_voice(args)
        load = time.perf_counter() - started
        result = _run(args, voice, text, target)
    where = {"-": "standard output", None: "loudspeaker"}.get(args.output if target is None else str(target), target)
    if args.json:
        from melstate.tts import timestamps

        report: dict[str, Any] = {
            "voice": voice.name,
            "model": voice.model,
            "licence": voice.licence,
            "language": voice.language,
            "file": None if target is None else str(target),
            "sample_rate": voice.sample_rate,
            "samples": result.samples,
            "seconds": round(result.seconds, 4),
            "load_seconds": round(load, 4),
            "first_sound_seconds": round(result.first_sound, 4),
            "times_real_time": round(result.times_real_time, 2),
            "coverage": result.coverage.to_dict(),
            "words": [timestamps.span_dict(span) for span in result.words],
            "phones": [timestamps.span_dict(span) for span in result.phones],
            "warnings": cautions,
        }
        line = json.dumps(report, ensure_ascii=False)
    else:
        model = f" {args.model}" if args.model else ""
        line = (
            f"{voice.name}{model} ({voice.licence}) · {result.seconds:.1f} s of speech · "
            f"first sound {1000 * result.first_sound:.0f} ms · {result.times_real_time:.0f}x real time → {where}"
        )
    print(line, file=sys.stderr if args.output == "-" else sys.stdout)


def _read_text(args: argparse.Namespace) -> str:
    source = args.input_file if args.input_file is not None else args.text
    if args.input_file is None and source != "-":
        text = source
    else:
        name = "standard input" if source == "-" else source
        try:
            data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Problem(INPUT, f"{name}: not UTF-8 text (byte {error.start}); convert it first") from error
        except (OSError, ValueError) as error:
            raise Problem(INPUT, f"{name}: {getattr(error, 'strerror', None) or error}") from error
    if not text.strip():
        raise Problem(INPUT, "nothing to speak: the text is empty")
    return text


def _target(args: argparse.Namespace, text: str) -> Path | None:
    """The file to write, if any."""
    if args.output == "-" or (args.play and args.output is None):
        return None
    return Path(args.output) if args.output is not None else default_name(text)


def default_name(text: str) -> Path:
    """hello-world.wav for "Hello, world."; with a number if that file exists: what was not named is not replaced."""
    plain = unicodedata.normalize("NFKD", text[:200]).encode("ascii", "ignore").decode()
    stem = ""
    for word in re.findall("[a-z0-9]+", plain.lower()):
        if len(stem) + len(word) > 40:
            break
        stem += f"-{word}" if stem else word
    stem = stem or "speech"
    path, number = Path(f"{stem}.wav"), 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.wav")
    return path


def _check_voice(args: argparse.Namespace) -> None:
    """A missing voice or model is told before torch is imported."""
    from melstate.tts import manifest

    try:
        manifest.read(manifest.find(args.voice)).choose(args.model)
    except manifest.VoiceError as error:
        raise Problem(MODEL, str(error)) from error


def _load_voice(args: argparse.Namespace) -> Voice:
    with _out_of_memory():
        with _no_garbage_collection():
            set_threads(args.threads)

        from melstate.tts.manifest import VoiceError
        from melstate.tts.text import FrontEnd
        from melstate.tts.voice import Voice

        try:
            front_end = FrontEnd(args.lexicon)
        except (ValueError, OSError) as error:
            raise Problem(INPUT, f"--lexicon {args.lexicon}: {error}") from error
        try:
            return Voice.load(args.voice, model=args.model, device=args.device, front_end=front_end)
        except VoiceError as error:
            raise Problem(MODEL, str(error)) from error
        except ValueError as error:
            raise Problem(RESOURCES, str(error)) from error


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Importing torch makes objects by the hundred thousand, all to stay; looking for garbage among them, again and
    again, takes half a second."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


class _Result:
    """What is known of the speech when it is over."""

    def __init__(self, sample_rate: int) -> None:
        from melstate.tts.audio import Coverage

        self.sample_rate = sample_rate
        self.samples = 0
        self.first_sound = 0.0  # seconds from the request
        self.working = 0.0  # seconds spent making speech, playing and writing not counted
        self.words: list[Span] = []
        self.phones: list[Span] = []
        self.coverage = Coverage()

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    @property
    def times_real_time(self) -> float:
        return self.seconds / self.working


def _run(args: argparse.Namespace, voice: Voice, text: str, target: Path | None) -> _Result:
    """Speak into every sink that was asked for."""
    import numpy as np

    from melstate.tts import sinks, timestamps

    try:
        stream = voice.stream(text, seed=args.seed, **{name: getattr(args, name) for name in RANGES})
    except ValueError as error:
        raise Problem(USAGE, str(error)) from error
    result = _Result(voice.sample_rate)
    kept: list[np.ndarray] = []
    with _output_errors(target or args.output), ExitStack() as stack:
        writers: list[Callable[[np.ndarray], None]] = []
        if target is not None:
            writers.append(stack.enter_context(sinks.file(target, voice.sample_rate)))
        if args.output == "-":
            writers.append(sinks.pcm(sys.stdout.buffer))
        if args.play:
            writers.append(stack.enter_context(_speaker(voice.sample_rate)))
        if args.plot is not None:
            writers.append(kept.append)
        listeners: list[Callable[[Audio], None]] = []
        if args.timestamps is not None:
            about = {"voice": voice.name, "model": voice.model}
            stack.enter_context(_output_errors(args.timestamps))
            listeners.append(stack.enter_context(timestamps.writer(args.timestamps, about)))
        advance = stack.enter_context(_progress(len(text)))
        for audio in _timed(stream, result):
            with _output_errors(target or args.output):
                for write in writers:
                    write(audio.samples)
            for listen in listeners:
                listen(audio)
            result.coverage += audio.coverage
            if args.json or args.plot is not None:
                result.words += audio.words
                result.phones += audio.phones
            advance(audio.progress, result)
    if args.plot is not None:
        from melstate.tts import plot

        with _output_errors(args.plot):
            plot.speech(args.plot, np.concatenate(kept), voice.vocoder.mel, result.words, result.phones)
    return result


def _timed(stream: Iterator[Audio], result: _Result) -> Iterator[Audio]:
    """Pass pieces on, noting when they came; faults of text, voice and memory end the command."""
    from melstate.tts.manifest import VoiceError

    while True:
        started = time.perf_counter()
        try:
            with _out_of_memory():
                audio = next(stream, None)
        except (VoiceError, RuntimeError) as error:
            raise Problem(MODEL, str(error)) from error
        except ValueError as error:
            raise Problem(INPUT, str(error)) from error
        result.working += time.perf_counter() - started
        if audio is None:
            return
        if not result.samples:
            result.first_sound = result.working
        result.samples += len(audio.samples)
        yield audio


@contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise Problem(RESOURCES, "out of memory") from error
    except RuntimeError as error:  # torch has no class of its own for an exhausted CPU
        if "out of memory" in str(error) or "not enough memory" in str(error) or "can't allocate" in str(error):
            raise Problem(RESOURCES, f"out of memory: {str(error).splitlines()[0]}") from error
        raise


@contextmanager
def _output_errors(target: object) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Problem(RESOURCES, f"{target}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _speaker(sample_rate: int) -> Iterator[Callable[[Any], None]]:
    from melstate.tts import sinks

    try:
        with sinks.loudspeaker(sample_rate) as write:
            yield write
    except sinks.NoLoudspeaker as error:
        raise Problem(RESOURCES, str(error)) from error


@contextmanager
def _progress(characters: int) -> Iterator[Callable[[float, _Result], None]]:
    """A bar on standard error for a long text in a terminal."""
    if characters < LONG_TEXT or not sys.stderr.isatty():
        yield lambda part, result: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("speaking"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.fields[made]}"), console=Console(stderr=True), transient=True)
    with bar:
        task = bar.add_task("speaking", total=1.0, made="")

        def advance(part: float, result: _Result) -> None:
            made = f"{result.seconds:.0f} s of speech, {result.times_real_time:.0f}x real time"
            bar.update(task, completed=part, made=made)

        yield advance


@contextmanager
def _warnings_as_lines(seen: list[str]) -> Iterator[None]:
    """What the front end and the voice warn of is a line each on standard error; others' warnings are not for the
    listener."""

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        from melstate.tts.acoustic import SpeechWarning
        from melstate.tts.text.characters import TextWarning

        text = " ".join(str(message).split())
        if not issubclass(category, TextWarning | SpeechWarning) or text in seen:
            return
        seen.append(text)
        if len(seen) <= MOST_WARNINGS:
            more = " (further warnings are not shown)" if len(seen) == MOST_WARNINGS else ""
            print(f"synthesize: warning: {text}{more}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]
        yield


if __name__ == "__main__":
    command()
