"""Vocoders inside the package, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "models"


def names() -> list[str]:
    """Of the vocoders that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(name_or_path: str | Path) -> Path:
    """The file of a shipped vocoder if that is its name, else the path as it was given: './universal' is a path."""
    if isinstance(name_or_path, str) and name_or_path in names():
        return FOLDER / f"{name_or_path}.safetensors"
    return Path(name_or_path)
