"""A tiny voice, untrained, for tests of whatever speaks."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny_voice

from melstate.tts import voice as voice_module


@pytest.fixture(scope="session")
def tiny():
    return tiny_voice.tiny_voice()


@pytest.fixture
def tiny_kinds(monkeypatch):
    """Voices of the tiny kinds can be loaded."""
    monkeypatch.setitem(voice_module.ACOUSTIC_MODELS, "tiny_acoustic", "tiny_voice:TinyAcoustic")
    monkeypatch.setitem(voice_module.VOCODERS, "tiny_vocoder", "tiny_voice:TinyVocoder")


@pytest.fixture
def tiny_folder(tiny, tiny_kinds, tmp_path):
    """A voice folder of the tiny voice, to be loaded or broken."""
    folder = tmp_path / "tiny"
    tiny.save(folder)
    return folder


@pytest.fixture
def run_python():
    """Run a line of Python in a fresh process; its standard output."""

    def run(code):
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
        ).stdout

    return run
