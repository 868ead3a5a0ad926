"""Whatever happens in a command, its user gets one line and the right exit code."""

import subprocess
import sys

import pytest

from melstate.vocoders.command import INPUT, Parser, Problem, run


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (Problem(INPUT, "x.wav: not\n a sound"), 3, "speak: x.wav: not a sound\n"),
        (KeyboardInterrupt(), 130, "speak: interrupted\n"),
        (MemoryError(), 5, "speak: out of memory\n"),
        (ZeroDivisionError("by zero"), 1, "please report it: ZeroDivisionError: by zero"),
    ],
)
def test_codes(raised, code, said, capsys, monkeypatch):
    def work():
        raise raised

    monkeypatch.delenv("MELSTATE_TRACEBACK", raising=False)
    assert run("speak", work) == code
    found = capsys.readouterr()
    assert said in found.err and found.err.count("\n") == 1 and not found.out


def test_faults_can_be_looked_into(monkeypatch):
    monkeypatch.setenv("MELSTATE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run("speak", lambda: 1 / 0)


def test_arguments():
    parser = Parser(prog="speak")
    parser.add_threads()
    assert parser.parse_args(["--threads", "3"]).threads == 3 and parser.parse_args([]).threads is None
    for wrong in ("0", "1025", "-1", "two", "²", "1.5"):
        with pytest.raises(Problem, match=r"whole number in 1 to 1024 \(see speak --help\)"):
            parser.parse_args([f"--threads={wrong}"])


def test_a_reader_that_goes_away_is_no_fault_and_torch_is_not_needed():
    program = """
import sys
from melstate.vocoders.command import as_process, run
def work():
    for _ in range(100_000):
        print("a line of text")
    assert "torch" not in sys.modules
as_process(lambda: run("speak", work))
"""
    done = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout.readline() == "a line of text\n"
    done.stdout.close()
    assert done.stderr.read() == "" and done.wait() == 141
