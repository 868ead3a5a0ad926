"""The models of a voice folder: read one, write one, add one to a voice that is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from melstate.tts import manifest
from melstate.tts.acoustic import AcousticModel
from melstate.tts.manifest import Manifest, ModelFile, VoiceError
from melstate.vocoders import checkpoint, kinds
from melstate.vocoders.vocoder import Vocoder

# kind → class, imported only when a voice of that kind is loaded.
ACOUSTIC_MODELS = {
    "fastspeech": "melstate.tts.fastspeech:FastSpeech",
    "neural_hmm": "melstate.tts.neural_hmm:NeuralHMM",
    "overflow": "melstate.tts.overflow:OverFlow",
    "lina": "melstate.tts.lina:Lina",
}
VOCODERS = kinds.KINDS


def load_model(folder: Path, about: Manifest, model: ModelFile, classes: dict[str, str]) -> torch.nn.Module:
    """Read, check and build one of a voice's models, in eval mode. Raises VoiceError."""
    path = manifest.model_path(folder, about, model)
    try:
        loaded = checkpoint.read(path)
        if loaded.kind != model.kind:
            raise ValueError(f"{path}: holds a {loaded.kind!r}, {manifest.MANIFEST} says {model.kind!r}")
        if classes is ACOUSTIC_MODELS and loaded.extra.get("symbols") != _symbols_version():
            raise ValueError(
                f"{path}: trained on symbols version {loaded.extra.get('symbols')!r}, the front end has "
                f"{_symbols_version()}; retrain it or install the melstate that made it"
            )
        return checkpoint.build(loaded, classes)
    except (ValueError, OSError) as error:
        raise VoiceError(f"voice '{about.name}': {error}") from error


def add_model(folder: str | Path, acoustic: AcousticModel, name: str | None = None, *, half: bool = True) -> str:
    """Give the voice in `folder` one more acoustic model, or another in place of its namesake.

    Args:
        name: what the voice calls it, [a-z0-9_-]; its kind if None.
        half: store the weights in fp16.
    Returns: the name.
    Raises: VoiceError: no voice there, an unusable name, or the model's mel is not the vocoder's. ValueError: weights
        that are not finite.
    """
    folder, name = Path(folder), acoustic.kind if name is None else name
    about = manifest.read(folder)
    check_model_name(about.name, name)
    for other, model in about.models.items():
        if model.file == f"{name}.safetensors" and other != name:
            raise VoiceError(f"voice '{about.name}': {model.file} holds its model '{other}'; choose another name")
    vocoder = checkpoint.read(manifest.model_path(folder, about, about.vocoder))
    if different := acoustic.mel.differences(vocoder.mel):
        raise VoiceError(f"voice '{about.name}': mels of model '{name}' and of its vocoder differ: {different}")
    saved = save_model(folder, name, acoustic, half)
    write_manifest(folder, replace(about, models={**about.models, name: saved}))
    return name


def replace_vocoder(folder: str | Path, vocoder: Vocoder, *, half: bool = True) -> None:
    """Give the voice in `folder` another vocoder; its acoustic models stay.

    Args:
        half: store the weights in fp16.
    Raises: VoiceError: no voice there, or the mel of one of its models is not the vocoder's. ValueError: weights that
        are not finite.
    """
    folder = Path(folder)
    about = manifest.read(folder)
    for name, model in about.models.items():
        acoustic = checkpoint.read(manifest.model_path(folder, about, model))
        if different := acoustic.mel.differences(vocoder.mel):
            raise VoiceError(f"voice '{about.name}': mels of model '{name}' and of the vocoder differ: {different}")
    write_manifest(folder, replace(about, vocoder=save_model(folder, "vocoder", vocoder, half)))


def check_model_name(voice: str, model: str) -> None:
    """Raises VoiceError unless `voice` may call an acoustic model so."""
    if not manifest.is_model_name(model):
        raise VoiceError(
            f"voice '{voice}': model {model!r}: a name may hold only a-z, 0-9, '-' and '_', and not be 'vocoder'"
        )


def save_model(folder: Path, name: str, model: AcousticModel | Vocoder, half: bool) -> ModelFile:
    """Write <name>.safetensors. Raises ValueError: weights that are not finite."""
    path = folder / f"{name}.safetensors"
    extra = {"symbols": _symbols_version()} if isinstance(model, AcousticModel) else {}
    checkpoint.save(path, model, half=half, extra=extra)
    return ModelFile(model.kind, path.name, manifest.sha256(path))


def write_manifest(folder: Path, about: Manifest) -> None:
    """Write voice.yaml, then remove what only the one before named."""
    try:
        before = manifest.read(folder)
    except VoiceError:
        stale: set[str] = set()
    else:
        stale = {model.file for model in (*before.models.values(), before.vocoder)}
    manifest.write(folder, about)
    for name in stale - {model.file for model in (*about.models.values(), about.vocoder)}:
        (folder / name).unlink(missing_ok=True)


def _symbols_version() -> int:
    from melstate.tts.text.symbols import VERSION

    return VERSION
