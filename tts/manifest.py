"""voice.yaml: what a voice folder holds. Read without torch, so that voices can be listed at once.

format: 2
name: kathleen
language: en-US
licence: CC0-1.0
description: …
models:                 # acoustic models by name; the first speaks unless another is asked for
  fastspeech: {kind: fastspeech, file: fastspeech.safetensors, sha256: …}
  neural_hmm: {kind: neural_hmm, file: neural_hmm.safetensors, sha256: …}
    # each may have contrast: {gains: […], means: […], quiet: −8.5}, see melstate.tts.contrast
vocoder: {kind: source_filter, file: vocoder.safetensors, sha256: …}
defaults: {gain: 6.0, sentence_pause: 0.2}

A cloned voice holds no more than the state that another voice's model starts from: its one model is of kind lina_start,
its vocoder is the other voice's, and it says whose:

base: {voice: kathleen, model: lina, sha256: …}
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from melstate.tts.contrast import Contrast

FORMAT = 2
MANIFEST = "voice.yaml"
SHIPPED = Path(__file__).parent / "voices"
NAME = re.compile(r"[a-z0-9_-]{1,64}")  # used with fullmatch: no dots, slashes, percent signs, NULs, newlines
FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\.safetensors")
LARGEST = 65536  # bytes of voice.yaml


class VoiceError(ValueError):
    """A voice that is missing or broken; the message says which and what to do."""


@dataclass(frozen=True)
class ModelFile:
    """kind: registry name; file: name inside the folder; sha256: hex digest of the file; contrast: of its mels."""

    kind: str
    file: str
    sha256: str
    contrast: Contrast | None = None

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.contrast is None:
            del values["contrast"]
        else:
            values["contrast"] |= {key: list(values["contrast"][key]) for key in ("gains", "means")}
        return values


@dataclass(frozen=True)
class Base:
    """voice: a shipped voice's name, or a voice folder's path relative to the clone's, with a '/'; model: one of its
    models; sha256: hex digest of that model's file."""

    voice: str
    model: str
    sha256: str


@dataclass(frozen=True)
class Defaults:
    """How the voice speaks when nothing is asked.

    Attributes:
        speed, pitch, energy, pause, variation: as in melstate.tts.acoustic.Controls.
        gain: decibels on the vocoder's output, to bring a quiet recording to a usual level.
        sentence_pause, paragraph_pause: seconds of silence added after a sentence and after a paragraph; × pause.
        f0: "predicted": the vocoder gets the acoustic model's F0; "estimated": it finds F0 in the mel itself.
    """

    speed: float = 1.0
    pitch: float = 0.0
    energy: float = 0.0
    pause: float = 1.0
    variation: float = 1.0
    gain: float = 0.0
    sentence_pause: float = 0.2
    paragraph_pause: float = 0.6
    f0: str = "predicted"

    def __post_init__(self) -> None:
        limits = {"gain": (-40.0, 40.0), "sentence_pause": (0.0, 10.0), "paragraph_pause": (0.0, 10.0)}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "f0":
                if value not in ("predicted", "estimated"):
                    raise ValueError(f"f0 must be 'predicted' or 'estimated', got {value!r}")
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{field.name} must be a number, got {value!r}")
            low, high = limits.get(field.name, (-math.inf, math.inf))
            if not low <= value <= high:
                raise ValueError(f"{field.name} must be in {low:g}..{high:g}, got {value:g}")


@dataclass(frozen=True)
class Manifest:
    """The contents of voice.yaml. licence is an SPDX identifier or a short name; models: by name, the default first."""

    name: str
    language: str
    licence: str
    description: str
    models: Mapping[str, ModelFile]
    vocoder: ModelFile
    defaults: Defaults = Defaults()
    base: Base | None = None

    def choose(self, model: str | None = None) -> str:
        """The name of the acoustic model that is asked for; of the first if None. Raises VoiceError: no such model."""
        default = next(iter(self.models))
        if model is None or model in self.models:
            return model or default
        names = ", ".join(f"{name} (default)" if name == default else name for name in self.models)
        raise VoiceError(f"voice '{self.name}': has no model {model[:80]!r}; its models: {names}")

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["models"] = {name: model.to_dict() for name, model in self.models.items()}
        values["vocoder"] = self.vocoder.to_dict()
        standard = Defaults()
        values["defaults"] = {k: v for k, v in values["defaults"].items() if v != getattr(standard, k)}
        if self.base is None:
            del values["base"]
        return {"format": FORMAT} | values


def find(name_or_path: str | Path) -> Path:
    """The folder of a voice.

    Args:
        name_or_path: the name of a shipped voice ([a-z0-9_-] only), or a folder with a voice.yaml: a Path, or a str
            with a path separator.
    Raises: VoiceError: no such voice; the message lists those there are. Nothing is opened outside the voices folder
        for a name.
    """
    if isinstance(name_or_path, Path) or "/" in name_or_path:
        folder = Path(name_or_path)
        try:
            if (folder / MANIFEST).is_file():
                return folder
        except (ValueError, OSError):  # NUL, a name too long, no permission
            pass
        raise VoiceError(
            f"voice {str(name_or_path)[:200]!r}: no folder with a {MANIFEST} there; shipped voices: {_listing()}"
        )
    if not NAME.fullmatch(name_or_path):
        raise VoiceError(
            f"voice {name_or_path[:200]!r}: a name may hold only a-z, 0-9, '-' and '_'; shipped voices: {_listing()}; "
            "for a folder of your own give its path with a '/'"
        )
    folder = SHIPPED / name_or_path
    if not _is_shipped(folder):
        raise VoiceError(f"voice {name_or_path!r}: unknown; shipped voices: {_listing()}")
    return folder


def shipped() -> list[Manifest]:
    """The voices inside the package, by name. Raises VoiceError if one is broken."""
    return [read(SHIPPED / name) for name in _names()]


def read(folder: Path) -> Manifest:
    """voice.yaml of a folder, strictly: unknown, missing and mistyped keys are refused.

    Raises: VoiceError.
    """
    import yaml

    path = folder / MANIFEST
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise VoiceError(f"{path}: longer than {LARGEST} bytes; not a voice")
        values = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise VoiceError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise VoiceError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(values, dict):
        raise VoiceError(f"{path}: holds {type(values).__name__}, expected keys and values")
    if values.get("format") != FORMAT:
        raise VoiceError(f"{path}: voice format {values.get('format')!r}, this version reads {FORMAT}; export it again")
    values = {key: value for key, value in values.items() if key != "format"}
    _check_keys(path, "", values, Manifest, optional={"defaults", "base"})
    models = values["models"]
    if not isinstance(models, dict) or not models:
        raise VoiceError(f"{path}: models is {models!r}, expected acoustic models by name")
    for name in models:
        if not is_model_name(name):
            raise VoiceError(f"{path}: models: {name!r} is no name for a model: only a-z, 0-9, '-', '_'; not 'vocoder'")
    values["models"] = {name: _model_file(path, f"models.{name}", model) for name, model in models.items()}
    values["vocoder"] = _model_file(path, "vocoder", values["vocoder"])
    if values.get("base") is not None:
        _check_keys(path, "base.", values["base"], Base)
        values["base"] = Base(**{key: str(value) for key, value in values["base"].items()})
    defaults = values.get("defaults") or {}
    _check_keys(path, "defaults.", defaults, Defaults, optional={field.name for field in fields(Defaults)})
    try:
        values["defaults"] = Defaults(**defaults)
    except ValueError as error:
        raise VoiceError(f"{path}: defaults.{error}") from error
    for key in ("name", "language", "licence", "description"):
        if not isinstance(values[key], str) or not values[key].strip():
            raise VoiceError(f"{path}: {key} is {values[key]!r}, expected text")
    if not NAME.fullmatch(values["name"]):
        raise VoiceError(f"{path}: name {values['name']!r} may hold only a-z, 0-9, '-' and '_'")
    if not (folder / "LICENSE").is_file():
        raise VoiceError(f"{folder}: has no LICENSE file; add the text of {values['licence']}")
    return Manifest(**values)


def is_model_name(name: object) -> bool:
    """Whether a voice's acoustic model may be called so."""
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and name != "vocoder"


def write(folder: Path, about: Manifest) -> None:
    """Write voice.yaml, whole or not at all."""
    import yaml

    from melstate.vocoders.checkpoint import write_atomic

    text = yaml.safe_dump(about.to_dict(), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    write_atomic(folder / MANIFEST, text.encode())


def model_path(folder: Path, manifest: Manifest, model: ModelFile) -> Path:
    """The path of a model file, its hash checked. Raises VoiceError: missing, a link out of the folder, other hash."""
    path = folder / model.file
    if not path.is_file():
        raise VoiceError(f"voice '{manifest.name}': {path} is missing; download or export the voice again")
    if path.resolve().parent != folder.resolve():
        raise VoiceError(f"voice '{manifest.name}': {path} is a link out of the voice's folder; copy the file instead")
    digest = sha256(path)
    if digest != model.sha256:
        raise VoiceError(
            f"voice '{manifest.name}': {path} has SHA-256 {digest}, {MANIFEST} says {model.sha256}; "
            "the file is damaged or was replaced: download or export the voice again"
        )
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _names() -> list[str]:
    if not SHIPPED.is_dir():
        return []
    return sorted(entry.name for entry in SHIPPED.iterdir() if _is_shipped(entry))


def _is_shipped(folder: Path) -> bool:
    """A link out of the voices folder is not one of its voices."""
    return (folder / MANIFEST).is_file() and folder.resolve().parent == SHIPPED.resolve()


def _listing() -> str:
    return ", ".join(_names()) or "none"


def _model_file(path: Path, key: str, values: Any) -> ModelFile:
    _check_keys(path, f"{key}.", values, ModelFile, optional={"contrast"})
    if values.get("contrast") is not None:
        values = values | {"contrast": _contrast(path, f"{key}.contrast", values["contrast"])}
    model = ModelFile(**values)
    for part in ("kind", "file", "sha256"):
        if not isinstance(getattr(model, part), str):
            raise VoiceError(f"{path}: {key}.{part} is {getattr(model, part)!r}, expected text")
    if not FILE.fullmatch(model.file):
        raise VoiceError(f"{path}: {key}.file {model.file!r} is not a plain .safetensors name inside the folder")
    if not re.fullmatch("[0-9a-f]{64}", model.sha256):
        raise VoiceError(f"{path}: {key}.sha256 {model.sha256!r} is not a SHA-256 (64 hex digits)")
    return model


def _contrast(path: Path, key: str, values: Any) -> Contrast:
    _check_keys(path, f"{key}.", values, Contrast)
    try:
        lists = {name: tuple(float(value) for value in values[name]) for name in ("gains", "means")}
        return Contrast(**lists, quiet=float(values["quiet"]))
    except (TypeError, ValueError) as error:
        raise VoiceError(f"{path}: {key}: {error}") from error


def _check_keys(path: Path, prefix: str, values: Any, kind: type, optional: Set[str] = frozenset()) -> None:
    known = {field.name for field in fields(kind)}
    if not isinstance(values, dict):
        raise VoiceError(f"{path}: {prefix.rstrip('.')} is {values!r}, expected keys {', '.join(sorted(known))}")
    for key in values:
        if key not in known:
            raise VoiceError(f"{path}: unknown key {prefix + str(key)!r}; known: {', '.join(sorted(known))}")
    for key in sorted(known - optional):
        if values.get(key) in (None, ""):
            raise VoiceError(f"{path}: {prefix + key!r} is missing; a voice needs its {key}")
