"""Read trained models from where training leaves them: a .safetensors, a Lightning .ckpt, or a run's folder.

Vocoders also from the torch files in which HiFi-GAN and MelGAN generators were published.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from melstate.tts.acoustic import AcousticModel, Batch
from melstate.tts.text.symbols import VERSION
from melstate.tts.voice import ACOUSTIC_MODELS, VOCODERS
from melstate.vocoders import checkpoint, published, shipped
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.vocoder import Vocoder

OURS = (".safetensors", ".ckpt")

# kind → class of what gives durations
ALIGNERS = {
    "aligner": "melstate.tts.aligner:Aligner",
    "neural_hmm": "melstate.tts.neural_hmm:NeuralHMM",
    "overflow": "melstate.tts.overflow:OverFlow",
}


class Aligner(Protocol):
    """What aligns recordings with their symbols; an utterance needs `frames_per_symbol` frames for each."""

    kind: str
    mel: MelConfig

    @property
    def frames_per_symbol(self) -> int: ...

    def durations(self, batch: Batch) -> Tensor:
        """(B, N) frames per symbol, summing to mel_lengths."""


def read_acoustic(path: str | Path) -> AcousticModel:
    """An acoustic model. Raises ValueError, FileNotFoundError: unreadable, a vocoder, or another symbol table's."""
    model, extra = _read(Path(path), ACOUSTIC_MODELS)
    if extra.get("symbols", VERSION) != VERSION:
        raise ValueError(
            f"{path}: trained on symbols version {extra['symbols']!r}, the front end has {VERSION}; retrain it"
        )
    return cast(AcousticModel, model)


def read_vocoder(path: str | Path) -> Vocoder:
    """A shipped vocoder by name, one of ours, or, from a file of another suffix, a published HiFi-GAN or MelGAN.

    Raises: ValueError, FileNotFoundError: unreadable or not a vocoder.
    """
    path = shipped.find(path)
    if not path.is_dir() and path.suffix not in OURS:
        return published.read(path)
    return cast(Vocoder, _read(path, VOCODERS)[0])


def read_aligner(path: str | Path) -> Aligner:
    """What gives durations. Raises ValueError, FileNotFoundError: unreadable or not one of `ALIGNERS`."""
    return cast(Aligner, _read(Path(path), ALIGNERS)[0])


def _read(path: Path, classes: dict[str, str]) -> tuple[nn.Module, dict[str, Any]]:
    if path.is_dir():
        exported = path / "model.safetensors"
        path = exported if exported.is_file() else path / "last.ckpt"
    if path.suffix == ".ckpt":
        return _from_lightning(path, classes), {}
    saved = checkpoint.read(path)
    return checkpoint.build(saved, classes), saved.extra


def _from_lightning(path: Path, classes: dict[str, str]) -> nn.Module:
    """The averaged weights of a training checkpoint; the run's config.yaml beside it says what they belong to."""
    import hydra
    from omegaconf import OmegaConf

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    described = path.with_name("config.yaml")
    if not described.is_file():
        raise FileNotFoundError(f"{described}: missing; a .ckpt is read together with its run's config.yaml")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    model: Any = hydra.utils.instantiate(OmegaConf.load(described).task.model, _convert_="all")
    prefix = "model."
    averages = saved["state_dict"]  # the trained weights themselves where training keeps no average
    tensors = {name.removeprefix(prefix): tensor for name, tensor in averages.items() if name.startswith(prefix)}
    if model.kind not in classes:
        raise ValueError(f"{path}: holds a {model.kind!r}, expected one of {', '.join(sorted(classes))}")
    checkpoint.restore(model, checkpoint.Checkpoint(path, model.kind, model.config, model.mel, {}, tensors))
    return model.eval()
