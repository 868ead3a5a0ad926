"""How a command of this project begins and ends: exit codes, errors of one line, threads. Nothing here imports torch.

Exit codes: 0 done, 1 a fault in this program, 2 usage, 3 bad input, 4 missing or broken voice or model, 5 resources
(disk, memory, device), 130 interrupted, 141 the reader of standard output went away.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

FAULT, USAGE, INPUT, MODEL, RESOURCES, INTERRUPTED, PIPE = 1, 2, 3, 4, 5, 130, 141
MOST_THREADS = 4  # unless asked for: the models are too small to share out further


class Problem(Exception):
    """Ends the command with an exit code and one line."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """Mistakes are Problems, of one line, and --version is known."""

    def error(self, message: str) -> NoReturn:
        raise Problem(USAGE, f"{message} (see {self.prog} --help)")

    def add_version(self) -> None:
        self.add_argument("--version", action=_Version, nargs=0, help="print the version")

    def add_threads(self) -> None:
        self.add_argument(
            "--threads",
            type=_threads,
            metavar="N",
            help=f"CPU threads; without it OMP_NUM_THREADS, else one a core, at most {MOST_THREADS}",
        )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"melstate {version('melstate')}")
        except PackageNotFoundError:
            print("melstate (not installed)")
        parser.exit()


def _threads(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number in 1 to 1024")
    return int(text)


def set_threads(threads: int | None) -> None:
    """What --threads asks for, or else what suits the machine unless OMP_NUM_THREADS says otherwise. Imports torch."""
    import torch

    if threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or min(MOST_THREADS, len(os.sched_getaffinity(0))))


def run(name: str, work: Callable[[], object]) -> int:
    """Do the work of the command `name`; returns the exit code, its problems written to standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show "→" is no reason to fail
    try:
        work()
        sys.stdout.flush()
        return 0
    except Problem as problem:
        return _fail(name, problem.code, str(problem))
    except KeyboardInterrupt:
        return _fail(name, INTERRUPTED, "interrupted")
    except BrokenPipeError:
        # the interpreter flushes stdout once more at exit and would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE
    except MemoryError:
        return _fail(name, RESOURCES, "out of memory")
    except Exception as error:
        if os.environ.get("MELSTATE_TRACEBACK"):
            raise
        hint = "MELSTATE_TRACEBACK=1 shows where"
        return _fail(name, FAULT, f"a fault in melstate, please report it: {type(error).__name__}: {error} ({hint})")


def _fail(name: str, code: int, message: str) -> int:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return code


def as_process(main: Callable[[], int]) -> NoReturn:
    """`main` as a process of its own, which ends without taking the interpreter apart: with torch in it, that costs a
    quarter of a second."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
