"""Two trained models become a voice: a folder with weights, hashes, licence and card.

    python -m melstate.recipes.export tts/voices/kathleen --acoustic runs/acoustic --vocoder runs/vocoder \\
        --licence CC0-1.0 --licence-file ../shared/data/kathleen/LICENSE --description "…" --figures evaluate.json

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

from torch import nn

from melstate.recipes.models import read_acoustic, read_vocoder
from melstate.tts.manifest import Defaults
from melstate.tts.voice import Voice

NUMBERS = tuple(field.name for field in fields(Defaults) if field.name != "f0")


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
        lines.append(f"- {part}: {model.kind}, {_parameters(model):,} parameters")
    if commands.strip():
        lines += ["", "## Training", "", *(f"    {line}" for line in commands.strip().splitlines())]
    if figures is not None:
        about = figures["about"]
        lines += [
            "",
            "## Measured",
            "",
            f"{figures['prompts']} prompts of {about['corpus']} that training did not see, read by "
            f"{about['recogniser']}; brackets: 95 % over prompts.",
            "",
            "| | word error rate | ratio to the recordings | real-time factor |",
            "|---|---|---|---|",
        ]
        for name, condition in figures["conditions"].items():
            cells = [_estimate(condition["wer"], 3), "1", ""]
            if "ratio" in condition:
                cells[1:] = [_estimate(condition["ratio"], 2), f"{condition['real_time_factor']:.3f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["", f"Real-time factor on {about['threads']} CPU thread(s), fp32."]
    return "\n".join(lines) + "\n"


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _estimate(interval: dict[str, float], digits: int) -> str:
    return f"{interval['value']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"


def export(folder: str | Path, voice: Voice, *, half: bool = True) -> int:
    """Save a voice, load it again and let it speak. Returns the folder's size in bytes.

    Raises: ValueError: anything that would keep the folder from loading. RuntimeError: it does not speak.
    """
    folder = Path(folder)
    voice.save(folder, half=half)
    again = Voice.load(folder, front_end=voice.front_end)
    spoken = again.synthesize("This voice can speak.")
    if spoken.seconds < 0.2 or abs(spoken.samples).max() < 1e-3:
        raise RuntimeError(f"{folder}: the exported voice is silent ({spoken.seconds:.2f} s); look at its models")
    return sum(entry.stat().st_size for entry in folder.iterdir())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", help="the voice's folder; it is created, or its files are replaced")
    add("--acoustic", required=True, help="a run's folder, its .safetensors or its .ckpt")
    add("--vocoder", required=True, help="likewise")
    add("--name", help="[a-z0-9_-]; the folder's name by default")
    add("--language", default="en-US")
    add("--licence", required=True, help="SPDX identifier of the voice's licence")
    add("--licence-file", required=True, help="its text")
    add("--description", required=True, help="one line")
    add("--data", default="", help="what it was trained on, for the card")
    add("--commands", default="", help="a file of the commands that trained it, for the card")
    add("--figures", help="the JSON that melstate evaluate wrote, for the card")
    add("--card", help="a card.md of your own instead")
    add("--full", action="store_true", help="store fp32 weights instead of fp16")
    for name in NUMBERS:
        add(f"--{name.replace('_', '-')}", type=float, help=f"default {name} of the voice")
    add("--f0", choices=("predicted", "estimated"), default="predicted", help="where the vocoder gets its F0")
    args = parser.parse_args(argv)
    try:
        chosen = {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}
        voice = Voice(
            args.name or Path(args.folder).resolve().name,
            read_acoustic(args.acoustic),
            read_vocoder(args.vocoder),
            language=args.language,
            licence=args.licence,
            description=args.description,
            licence_text=Path(args.licence_file).read_text("utf-8"),
            defaults=Defaults(**chosen, f0=args.f0),
        )
        if args.card:
            voice.card = Path(args.card).read_text("utf-8")
        else:
            commands = Path(args.commands).read_text("utf-8") if args.commands else ""
            figures = json.loads(Path(args.figures).read_text("utf-8")) if args.figures else None
            voice.card = card(voice, args.data or "not stated", commands, figures)
        size = export(args.folder, voice, half=not args.full)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(f"{args.folder}: voice '{voice.name}' ({voice.licence}), {size / 1e6:.1f} MB, loads and speaks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
