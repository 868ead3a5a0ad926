"""`melstate`: the umbrella command. A subcommand's module is imported only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from melstate.vocoders.command import INTERRUPTED, USAGE

# name → (module with main(argv) -> int, what it does)
COMMANDS = {
    "synthesize": ("melstate.tts.cli", "speak a text"),
    "train": ("melstate.recipes.train_voice", "make a voice of your own clips"),
    "clone": ("melstate.recipes.clone", "another speaker's voice from a few minutes of clips"),
    "evaluate": ("melstate.recipes.evaluate", "let a recogniser read a voice and its recordings"),
    "align": ("melstate.recipes.align_recording", "find a text's phones and words in its recording"),
    "evaluate-recognizer": (
        "melstate.recipes.evaluate_recognizer",
        "word errors of a recogniser, and words it invents",
    ),
    "evaluate-vocoders": ("melstate.recipes.evaluate_vocoders", "compare what vocoders make of recordings"),
    "vocode": ("melstate.recipes.vocode", "a recording or a mel through a vocoder"),
    "export": ("melstate.recipes.export", "make a voice folder of trained models"),
    "fit-contrast": ("melstate.recipes.fit_contrast", "give a voice's mels the spread of its recordings"),
    "export-recognizer": ("melstate.recipes.export_recognizer", "make a recogniser folder of trained models"),
    "bench": ("melstate.recipes.bench.synthesis", "time a voice"),
}


def usage() -> str:
    rows = {name: text for name, (_, text) in COMMANDS.items()}
    rows |= {"voices": "list the shipped voices", "version": "print the version"}
    lines = [f"  {name:<21}{text}" for name, text in rows.items()]
    return "\n".join(["usage: melstate COMMAND …", "", *lines, "", "melstate COMMAND --help tells more."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command == "voices":
        command, rest = "synthesize", ["--list-voices", *rest]
    elif command in ("version", "--version"):
        command, rest = "synthesize", ["--version"]
    if command in ("-h", "--help", "help"):
        print(usage())
        return 0
    if command not in COMMANDS:
        print(f"melstate: unknown command '{command}'; known: {', '.join(COMMANDS)}, voices, version", file=sys.stderr)
        return USAGE
    try:
        return import_module(COMMANDS[command][0]).main(rest)
    except KeyboardInterrupt:
        print("melstate: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
