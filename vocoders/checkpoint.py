"""Weights on disk: safetensors with the model's kind, configuration and mel contract in the header. Never pickle.

The header's metadata holds one key, "melstate", whose JSON value is
{"format": 1, "kind": …, "config": {…}, "mel": {…}, "extra": {…}}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from melstate.vocoders.mel import MelConfig

FORMAT = 1
KEY = "melstate"


class Model(Protocol):
    """What a checkpoint needs of an nn.Module: acoustic models and vocoders have it."""

    kind: str
    config: dict[str, Any]
    mel: MelConfig


class Checkpoint(NamedTuple):
    """A checkpoint file, read and checked.

    Attributes:
        path: where it came from, for messages.
        kind: registry name of the class.
        config: keyword arguments that rebuild the module.
        mel: the mel contract it was trained for.
        extra: whatever the saver added, e.g. {"symbols": 1}.
        tensors: state dict by name, on the CPU.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    mel: MelConfig
    extra: dict[str, Any]
    tensors: dict[str, Tensor]


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all (temporary file, fsync, rename); a failure leaves the old file as it was."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def save(path: str | Path, module: nn.Module, *, half: bool = False, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model's state dict and header, atomically.

    Args:
        path: the .safetensors file.
        module: an nn.Module with kind, config (JSON-able) and mel.
        half: store floating-point tensors as fp16; `restore` converts them back.
        extra: JSON-able additions to the header.
    Raises: ValueError: a tensor is not finite (in fp16 if half), or the header is not JSON.
    """
    model = cast(Model, module)
    header = {
        "format": FORMAT,
        "kind": model.kind,
        "config": model.config,
        "mel": model.mel.to_dict(),
        "extra": dict(extra or {}),
    }
    try:
        metadata = {KEY: json.dumps(header, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the header of {model.kind!r} is not JSON ({error})") from error
    tensors = {}
    for name, tensor in module.state_dict().items():
        stored = tensor.detach().to("cpu", torch.float16 if half and tensor.is_floating_point() else tensor.dtype)
        _check_finite(path, name, stored)
        tensors[name] = stored.contiguous().clone()  # safetensors refuses tensors that share storage
    write_atomic(path, to_bytes(tensors, metadata=metadata))


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint; the tensors are checked against a module by `restore`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, not safetensors, or without this project's header.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: truncated or not a safetensors file ({reason}); copy or export it again") from error
    if KEY not in metadata:
        raise ValueError(f"{path}: a safetensors file without a '{KEY}' header; export it with melstate")
    try:
        header = json.loads(metadata[KEY])
    except ValueError as error:
        raise ValueError(f"{path}: the '{KEY}' header is not JSON ({error}); export it again") from error
    keys = {"format": int, "kind": str, "config": dict, "mel": dict, "extra": dict}
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise ValueError(f"{path}: checkpoint format {found!r}, this version reads {FORMAT}; export it again")
    if set(header) != set(keys) or not all(isinstance(header[key], kind) for key, kind in keys.items()):
        raise ValueError(f"{path}: header keys {sorted(header)}, expected {sorted(keys)}; export it again")
    try:
        mel = MelConfig.from_dict(header["mel"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(path, header["kind"], header["config"], mel, header["extra"], tensors)


def read_mean(paths: Sequence[str | Path]) -> Checkpoint:
    """The mean of the weights of checkpoints that grew out of the same one; its header is the first one's.

    Fine-tuned in different ways, each is good at something; their mean is nearly as good at both (Wortsman et al. 2022,
    arXiv:2203.05482).

    Raises: ValueError: no path, or checkpoints of another kind, configuration, mel, vocabulary or symbols; what `read`
        raises.
    """
    if not paths:
        raise ValueError("no checkpoint to take the mean of")
    first, *others = map(read, paths)
    for other in others:
        theirs = _likeness(other)
        if different := [part for part, value in _likeness(first).items() if theirs[part] != value]:
            raise ValueError(
                f"{other.path} and {first.path} differ in {', '.join(different)}; their weights have no mean"
            )
    if not others:
        return first

    def mean(name: str, tensor: Tensor) -> Tensor:
        total = tensor.double() + sum(other.tensors[name].double() for other in others)
        return (total / len(paths)).to(tensor.dtype)

    return first._replace(tensors={name: mean(name, tensor) for name, tensor in first.tensors.items()})


def _likeness(saved: Checkpoint) -> dict[str, Any]:
    """What two checkpoints must have in common for their weights to have a mean."""
    shapes = {name: tensor.shape for name, tensor in saved.tensors.items()}
    learned = {part: saved.extra.get(part) for part in ("tokens", "symbols")}
    return {"kind": saved.kind, "config": saved.config, "mel": saved.mel, "tensors": shapes, **learned}


def restore(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Load every tensor of a checkpoint into a module, or none. Stored fp16 becomes the module's dtype.

    Raises: ValueError: another kind or mel; a tensor missing, unexpected, of another shape or type, or not finite.
    """
    path, model = checkpoint.path, cast(Model, module)
    if checkpoint.kind != model.kind:
        raise ValueError(f"{path}: holds a {checkpoint.kind!r}, the module is a {model.kind!r}")
    if different := checkpoint.mel.differences(model.mel):
        raise ValueError(f"{path}: mel contracts differ, checkpoint != module: {different}")
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in checkpoint.tensors:
            raise ValueError(f"{path}: tensor '{name}' is missing; the file was made by another version or is damaged")
        stored = checkpoint.tensors[name]
        if stored.shape != tensor.shape:
            raise ValueError(
                f"{path}: tensor '{name}' has shape {tuple(stored.shape)}, the model needs {tuple(tensor.shape)}"
            )
        if stored.is_floating_point() != tensor.is_floating_point():
            raise ValueError(f"{path}: tensor '{name}' has type {stored.dtype}, the model needs {tensor.dtype}")
        _check_finite(path, name, stored)
    for name in checkpoint.tensors:
        if name not in expected:
            raise ValueError(f"{path}: tensor '{name}' is unknown to {model.kind!r}; the file is of another version")
    module.load_state_dict(checkpoint.tensors)


def build(checkpoint: Checkpoint, classes: Mapping[str, str]) -> nn.Module:
    """The model a checkpoint describes, with its weights, in eval mode.

    Args:
        checkpoint: from `read`.
        classes: kind → "module:Class"; only the module of this kind is imported.
    Raises: ValueError: unknown kind, a configuration the class refuses, or what `restore` refuses.
    """
    if checkpoint.kind not in classes:
        raise ValueError(f"{checkpoint.path}: unknown kind {checkpoint.kind!r}; known: {', '.join(sorted(classes))}")
    module_name, class_name = classes[checkpoint.kind].split(":")
    try:
        module = getattr(import_module(module_name), class_name)(**checkpoint.config)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{checkpoint.path}: {checkpoint.kind!r} refuses its configuration ({error})") from error
    restore(module, checkpoint)
    return module.eval()


def _check_finite(path: str | Path, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{path}: tensor '{name}' holds NaN or infinity ({tensor.dtype})")
