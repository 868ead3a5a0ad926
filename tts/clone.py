"""A cloned voice: another voice's models, and a state of its own that they start from.

Its folder holds voice.yaml with `base`, the state (start.safetensors, some kilobytes), LICENSE and card.md. The base is
found by name or path and must be the very one that the state was tuned on: its hash is checked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from melstate.tts import manifest
from melstate.tts.initial_state import InitialStates
from melstate.tts.lina import Lina
from melstate.tts.manifest import Base, Manifest, ModelFile, VoiceError
from melstate.tts.voice_folder import ACOUSTIC_MODELS, VOCODERS, load_model
from melstate.vocoders import checkpoint

FILE = "start.safetensors"


class LinaStart(nn.Module):
    """One speaker's initial states for a Lina, as a checkpoint.

    Args:
        model: the Lina that starts from them.
        rank: of the states.
    """

    kind: ClassVar[str] = "lina_start"

    def __init__(self, model: Lina, rank: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"rank": rank}
        self.mel = model.mel
        self.starts = InitialStates((model.lower.init_state(1), model.upper.init_state(1)), 1, rank)


def load_base(voice: str | Path, model: str | None = None) -> tuple[Path, Manifest, str, Lina]:
    """The voice that clones are made from: its folder, its manifest, its model's name and the model.

    Args:
        model: one of its models; its first Lina if None.
    Raises: VoiceError: no such voice or model, a voice that is a clone itself, or a model that is no Lina.
    """
    folder = manifest.find(voice)
    about = manifest.read(folder)
    if about.base is not None:
        raise VoiceError(f"voice '{about.name}' is itself a clone; take its base '{about.base.voice}'")
    if model is None:
        names = [name for name, file in about.models.items() if file.kind == Lina.kind]
        if not names:
            raise VoiceError(
                f"voice '{about.name}': none of its models ({', '.join(about.models)}) is a {Lina.kind}; only such a "
                "model can be cloned from"
            )
        model = names[0]
    lina = load_model(folder, about, about.models[about.choose(model)], ACOUSTIC_MODELS)
    if not isinstance(lina, Lina):
        raise VoiceError(f"voice '{about.name}': model '{model}' is a {about.models[model].kind}, not a {Lina.kind}")
    return folder, about, model, lina


def load_clone(folder: Path, about: Manifest, start: ModelFile) -> tuple[nn.Module, nn.Module]:
    """Acoustic model and vocoder of the clone in `folder`. Raises VoiceError: the base is missing or another one."""
    base = about.base
    assert base is not None
    place = base.voice if "/" not in base.voice else folder / base.voice
    try:
        origin, whose, model, lina = load_base(place, base.model)
    except VoiceError as error:
        raise VoiceError(f"voice '{about.name}' is a clone of '{base.voice}': {error}") from error
    for what, found, wanted in (
        (f"model '{model}'", whose.models[model].sha256, base.sha256),
        ("vocoder", whose.vocoder.sha256, about.vocoder.sha256),
    ):
        if found != wanted:
            raise VoiceError(
                f"voice '{about.name}' was tuned on a {what} of '{base.voice}' with SHA-256 {wanted[:16]}…, this one's "
                f"is {found[:16]}…; install the base that it was made from, or clone it again"
            )
    path = manifest.model_path(folder, about, start)
    try:
        saved = checkpoint.read(path)
        own = LinaStart(lina, int(saved.config.get("rank", 0)))
        checkpoint.restore(own, saved)
    except (ValueError, OSError) as error:
        raise VoiceError(f"voice '{about.name}': {error}") from error
    lina.speak_from(own.starts)
    return lina.eval(), load_model(origin, whose, whose.vocoder, VOCODERS)


def save_clone(
    folder: str | Path,
    start: LinaStart,
    base: str | Path,
    model: str,
    *,
    name: str,
    licence: str,
    licence_text: str,
    description: str,
    card: str = "",
) -> int:
    """Write a clone's folder; voice.yaml last. Returns its size in bytes.

    Args:
        base: a shipped voice's name or a voice folder's path; model: the one of its models that `start` belongs to.
    Raises: VoiceError: a name that cannot be used, or no licence. ValueError: states that are not finite.
    """
    folder = Path(folder)
    if not manifest.NAME.fullmatch(name):
        raise VoiceError(f"voice {name!r}: a name may hold only a-z, 0-9, '-' and '_'")
    if not licence.strip() or not licence_text.strip():
        raise VoiceError(f"voice '{name}': a voice needs a licence and the licence's text")
    origin = manifest.find(base)
    about = manifest.read(origin)
    folder.mkdir(parents=True, exist_ok=True)
    shipped = origin.resolve().parent == manifest.SHIPPED.resolve()
    where = about.name if shipped else os.path.join(".", os.path.relpath(origin.resolve(), folder.resolve()))
    path = folder / FILE
    checkpoint.save(path, start)
    checkpoint.write_atomic(folder / "LICENSE", licence_text.encode())
    checkpoint.write_atomic(folder / "card.md", card.encode())
    own = ModelFile(start.kind, FILE, manifest.sha256(path))
    whose = Base(where, model, about.models[model].sha256)
    written = Manifest(name, about.language, licence, description, {model: own}, about.vocoder, about.defaults, whose)
    manifest.write(folder, written)
    return sum(entry.stat().st_size for entry in folder.iterdir())


def continued(model: Lina, rank: int) -> LinaStart:
    """The state that `model` speaks from, with room for more: it starts where the base's own speaker does.

    Raises: ValueError: a rank below the base's.
    """
    have = model.starts.rank
    if rank < have:
        raise ValueError(f"rank must be at least the base's, {have}, got {rank}")
    start = LinaStart(model, rank)
    with torch.no_grad():
        for side in ("left", "right"):
            for new, old in zip(getattr(start.starts, side), getattr(model.starts, side), strict=True):
                new[..., :have] = old[model.speaker]
        for new, old in zip(start.starts.vector, model.starts.vector, strict=True):
            new.copy_(old[model.speaker])
    return start
