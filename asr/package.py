"""A recogniser's folder: model.yaml with hashes and decoding settings, weights, vocabulary, language model,
pronunciations, speaker encoder, licence.

    format: 1
    name: default
    language: en
    licence: …
    description: …
    files: {model.safetensors: <sha256>, language.npz: <sha256>, …}
    decoding: {pause: 0.6, …}

Nothing is loaded that is not listed there with its hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from melstate.vocoders.checkpoint import write_atomic

FORMAT = 1
MANIFEST = "model.yaml"
SHIPPED = Path(__file__).parent / "models"
NAME = re.compile(r"[a-z0-9_-]{1,64}")  # used with fullmatch: no dots, slashes, percent signs, NULs, newlines
MODEL, LANGUAGE, VOICES, LICENCE, CARD = "model.safetensors", "language.npz", "voices.safetensors", "LICENSE", "card.md"
PRONUNCIATIONS = "pronunciations.npz"
FILES = (MODEL, LANGUAGE, PRONUNCIATIONS, VOICES, LICENCE, CARD)
NEEDED = (MODEL, LICENCE)
LARGEST = 65536  # bytes of model.yaml


class ModelError(ValueError):
    """A recogniser that is missing or broken; the message says which and what to do."""


@dataclass(frozen=True)
class Manifest:
    """The contents of model.yaml. files: name → SHA-256; decoding: keyword arguments of decoding.Decoding."""

    name: str
    language: str
    licence: str
    description: str
    files: Mapping[str, str]
    decoding: Mapping[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """The shipped recognisers."""
    return sorted(p.parent.name for p in SHIPPED.glob(f"*/{MANIFEST}")) if SHIPPED.is_dir() else []


def find(name_or_path: str | Path) -> Path:
    """The folder of a recogniser: a shipped one by name, or any by a Path or a str with a slash.

    Raises: ModelError: no such recogniser; nothing outside the shipped ones is opened for a name.
    """
    there = f"shipped: {', '.join(names()) or 'none'}"
    if isinstance(name_or_path, Path) or "/" in name_or_path:
        folder = Path(name_or_path)
        try:
            if (folder / MANIFEST).is_file():
                return folder
        except (ValueError, OSError):  # NUL, a name too long, no permission
            pass
        raise ModelError(f"model {str(name_or_path)[:200]!r}: no folder with a {MANIFEST} there; {there}")
    if not NAME.fullmatch(name_or_path) or name_or_path not in names():
        raise ModelError(
            f"model {name_or_path[:200]!r}: unknown; {there}; for a folder of your own give its path with a /"
        )
    return SHIPPED / name_or_path


def read(folder: Path) -> Manifest:
    """model.yaml of a folder, strictly, its files' hashes checked. Raises ModelError."""
    import yaml

    path = folder / MANIFEST
    try:
        text = path.read_bytes()[:LARGEST].decode("utf-8")
        values: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"{path}: not readable ({str(error).splitlines()[0]})") from error
    keys = {f.name for f in fields(Manifest)} | {"format"}
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise ModelError(f"{path}: format {found!r}, this version reads {FORMAT}")
    if set(values) != keys:
        raise ModelError(f"{path}: keys {sorted(map(str, values))}, expected {sorted(keys)}")
    texts = {key: values[key] for key in ("name", "language", "licence", "description")}
    files, decoding = values["files"], values["decoding"]
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise ModelError(f"{path}: name, language, licence and description must be text")
    if not isinstance(files, dict) or not set(NEEDED) <= set(files) <= set(FILES):
        raise ModelError(
            f"{path}: files must name {', '.join(NEEDED)} and may name {', '.join(FILES)}; got {files!r:.200}"
        )
    if not isinstance(decoding, dict):
        raise ModelError(f"{path}: decoding must be names and numbers, got {decoding!r:.200}")
    for name, expected in files.items():
        try:
            actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"{folder / name}: missing or not readable ({error.strerror})") from error
        if actual != expected:
            raise ModelError(
                f"{folder / name}: SHA-256 {actual[:12]}…, {MANIFEST} says {str(expected)[:12]}…; copy it again"
            )
    return Manifest(**texts, files=files, decoding=decoding)


def write(folder: Path, manifest: Manifest) -> None:
    """model.yaml for the files that lie in the folder; their hashes are computed, `manifest.files` is not looked at.

    Raises: ModelError: a needed file is missing.
    """
    import yaml

    for name in NEEDED:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing; a recogniser needs {', '.join(NEEDED)}")
    present = [name for name in FILES if (folder / name).is_file()]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in present}
    values = {"format": FORMAT} | asdict(manifest) | {"files": files, "decoding": dict(manifest.decoding)}
    write_atomic(folder / MANIFEST, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
