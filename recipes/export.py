"""Two trained models become a voice: a folder with weights, hashes, licence and card.

    python -m melstate.recipes.export tts/voices/kathleen --acoustic runs/acoustic --vocoder runs/vocoder \\
        --licence CC0-1.0 --licence-file ../shared/data/kathleen/LICENSE --description "…" --figures evaluate.json

A voice may have several acoustic models; further ones are added to the folder that is there, for `--model NAME`:

    python -m melstate.recipes.export tts/voices/kathleen --add --acoustic runs/kathleen-neural_hmm --figures …

and its vocoder can be replaced (the card is then yours to bring up to date):

    python -m melstate.recipes.export tts/voices/kathleen --add --vocoder runs/universal-vocoder

The folder is loaded and spoken with before the command says that it is done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from melstate.recipes.evaluate import count, covered
from melstate.recipes.models import read_acoustic, read_vocoder
from melstate.tts import manifest
from melstate.tts.acoustic import AcousticModel
from melstate.tts.manifest import Defaults
from melstate.tts.voice import FrontEnd, Voice
from melstate.tts.voice_folder import add_model, replace_vocoder
from melstate.vocoders.checkpoint import write_atomic

NUMBERS = tuple(field.name for field in fields(Defaults) if field.name != "f0")
OPTIONAL = ("name", "language", "data", "card", *NUMBERS, "f0")  # of a new voice


def card(voice: Voice, data: str, commands: str, figures: dict[str, Any] | None) -> str:
    """card.md: what the voice is, what it was trained on and with, and what was measured.

    Args:
        data: the speech it learned from.
        commands: what was run, a command a line.
        figures: the JSON of melstate.recipes.evaluate, if there is one.
    """
    lines = [
        f"# {voice.name}",
        "",
        voice.description,
        "",
        f"- language: {voice.language}",
        f"- licence: {voice.licence} (the text is in LICENSE)",
        f"- data: {data}",
        f"- mel: {', '.join(f'{key} {value:g}' for key, value in voice.acoustic.mel.to_dict().items())}",
    ]
    for part, model in (("acoustic model", voice.acoustic), ("vocoder", voice.vocoder)):
        lines.append(f"- {part}: {model.kind}, {count(model):,} parameters")
    return "\n".join([*lines, *_history("##", commands, figures)]) + "\n"


def extended(text: str, name: str, model: AcousticModel, commands: str, figures: dict[str, Any] | None) -> str:
    """card.md with a section on a further model, in place of an older one of that name."""
    heading = f"## Model {name}"
    kept, skipping = [], False
    for line in text.rstrip().splitlines():
        if line.startswith("## "):
            skipping = line == heading
        if not skipping:
            kept.append(line)
    about = f"{model.kind}, {count(model):,} parameters; speaks with `--model {name}`."
    lines = ["\n".join(kept).rstrip(), "", heading, "", about, *_history("###", commands, figures)]
    return "\n".join(lines) + "\n"


def _history(heading: str, commands: str, figures: dict[str, Any] | None) -> list[str]:
    """Lines on how a model was trained and what was measured of it."""
    lines: list[str] = []
    if commands.strip():
        lines += ["", f"{heading} Training", "", *(f"    {line}" for line in commands.strip().splitlines())]
    if figures is None:
        return lines
    about = figures["about"]
    lines += [
        "",
        f"{heading} Measured",
        "",
        f"{figures['prompts']} prompts of {about['corpus']} that training did not see, read by "
        f"{about['recogniser']}; brackets: 95 % over prompts.",
        "",
        "| | word error rate | ratio to the recordings | real-time factor | first sound, ms | phones spoken |",
        "|---|---|---|---|---|---|",
    ]
    for name, condition in figures["conditions"].items():
        cells = [_estimate(condition["wer"], 3), "1", "", "", ""]
        if "ratio" in condition:
            cells[1:3] = [_estimate(condition["ratio"], 2), f"{condition['real_time_factor']:.3f}"]
        if "coverage" in condition:
            cells[3:] = [f"{condition['first_sound_ms']:.0f}", covered(condition["coverage"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", f"Times on {about['threads']} CPU thread(s), fp32."]


def _estimate(interval: dict[str, float], digits: int) -> str:
    return f"{interval['value']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"


def export(folder: str | Path, voice: Voice, *, half: bool = True) -> int:
    """Save a voice, load it again and let it speak. Returns the folder's size in bytes.

    Raises: ValueError: anything that would keep the folder from loading. RuntimeError: it does not speak.
    """
    voice.save(folder, half=half)
    return check(folder, voice.model, voice.front_end)


def check(folder: str | Path, model: str, front_end: FrontEnd | None = None) -> int:
    """Load a voice with one of its models and let it speak; returns the folder's size in bytes. Raises as `export`."""
    folder = Path(folder)
    spoken = Voice.load(folder, model=model, front_end=front_end).synthesize("This voice can speak.")
    if spoken.seconds < 0.2 or abs(spoken.samples).max() < 1e-3:
        raise RuntimeError(f"{folder}: the exported voice is silent ({spoken.seconds:.2f} s); look at its models")
    return sum(entry.stat().st_size for entry in folder.iterdir())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", help="the voice's folder; it is created, or its files are replaced")
    add(
        "--add", action="store_true", help="add the model to the voice that is there, or put it in its namesake's place"
    )
    add("--acoustic", help="a run's folder, its .safetensors or its .ckpt")
    add("--vocoder", help="likewise; with --add in place of the voice's own")
    add("--model", help="what the voice calls the acoustic model, [a-z0-9_-]; its kind by default")
    add("--commands", default="", help="a file of the commands that trained it, for the card")
    add("--figures", help="the JSON that melstate evaluate wrote, for the card")
    add("--full", action="store_true", help="store fp32 weights instead of fp16")
    add = parser.add_argument_group("of a new voice").add_argument
    add("--name", help="[a-z0-9_-]; the folder's name by default")
    add("--language", help="BCP 47; en-US by default")
    add("--licence", help="SPDX identifier of the voice's licence")
    add("--licence-file", help="its text")
    add("--description", help="one line")
    add("--data", help="what it was trained on, for the card")
    add("--card", help="a card.md of your own instead")
    for name in NUMBERS:
        add(_flag(name), type=float, help=f"default {name} of the voice")
    add("--f0", choices=("predicted", "estimated"), help="where the vocoder gets its F0; predicted by default")
    args = parser.parse_args(argv)
    parts, needed = ("acoustic", "vocoder"), ("licence", "licence_file", "description")
    given = [name for name in (*parts, *needed, *OPTIONAL) if getattr(args, name) is not None]
    if args.add and (kept := [name for name in given if name not in parts]):
        parser.error(f"--add keeps the voice as it is; leave out {_flag(kept[0])}")
    if args.add and not set(parts) & set(given):
        parser.error("--add needs --acoustic, --vocoder or both")
    if missing := [_flag(name) for name in (*parts, *needed) if not args.add and name not in given]:
        parser.error(f"a new voice needs {', '.join(missing)}; --add extends one that is there")
    try:
        size = _add(args) if args.add else _create(args)
        about = manifest.read(Path(args.folder))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    models = f", models {', '.join(about.models)}" if len(about.models) > 1 else ""
    print(f"{args.folder}: voice '{about.name}' ({about.licence}){models}, {size / 1e6:.1f} MB, loads and speaks")
    return 0


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _create(args: argparse.Namespace) -> int:
    chosen = {name: getattr(args, name) for name in (*NUMBERS, "f0") if getattr(args, name) is not None}
    voice = Voice(
        args.name or Path(args.folder).resolve().name,
        read_acoustic(args.acoustic),
        read_vocoder(args.vocoder),
        model=args.model,
        language=args.language or "en-US",
        licence=args.licence,
        description=args.description,
        licence_text=Path(args.licence_file).read_text("utf-8"),
        defaults=Defaults(**chosen),
    )
    if args.card:
        voice.card = Path(args.card).read_text("utf-8")
    else:
        voice.card = card(voice, args.data or "not stated", *_records(args))
    return export(args.folder, voice, half=not args.full)


def _add(args: argparse.Namespace) -> int:
    folder = manifest.find(Path(args.folder))
    if args.vocoder:
        replace_vocoder(folder, read_vocoder(args.vocoder), half=not args.full)
    if not args.acoustic:
        return check(folder, manifest.read(folder).choose())
    model, records = read_acoustic(args.acoustic), _records(args)
    name = add_model(folder, model, args.model, half=not args.full)
    written = folder / "card.md"
    before = written.read_text("utf-8") if written.is_file() else f"# {manifest.read(folder).name}\n"
    write_atomic(written, extended(before, name, model, *records).encode())
    return check(folder, name)


def _records(args: argparse.Namespace) -> tuple[str, dict[str, Any] | None]:
    """The commands and figures for the card."""
    commands = Path(args.commands).read_text("utf-8") if args.commands else ""
    return commands, json.loads(Path(args.figures).read_text("utf-8")) if args.figures else None


if __name__ == "__main__":
    sys.exit(main())
