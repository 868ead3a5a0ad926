"""Published HiFi-GAN and MelGAN checkpoints as vocoders of ours."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melstate.vocoders.hifigan import HiFiGAN
from melstate.vocoders.layers import Chain, Conv, Mean, Residual, Up
from melstate.vocoders.mel import MelConfig
from melstate.vocoders.melgan import MelGAN


def read(weights: str | Path) -> HiFiGAN | MelGAN:
    """A published generator: HiFi-GAN's where the file holds a "generator" (its config.json beside it), else MelGAN's.

    Raises: FileNotFoundError, ValueError: as `read_hifigan` and `read_melgan`.
    """
    if "generator" in _loaded(weights):
        return read_hifigan(weights, Path(weights).with_name("config.json"))
    return read_melgan(weights)


def read_hifigan(weights: str | Path, config: str | Path) -> HiFiGAN:
    """A generator of the authors' repository (generator_v1, _v2, _v3, UNIVERSAL), weight normalisation fused.

    Args:
        weights: torch file holding {"generator": state dict}.
        config: the config.json beside it.
    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a checkpoint, or the configuration and the weights differ; names the first tensor.
    """
    tensors = _tensors(weights, "generator")
    try:
        settings = json.loads(Path(config).read_text(encoding="utf-8"))
        mel, options = _hifigan_options(settings)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{config}: not a HiFi-GAN configuration ({reason})") from error
    model = HiFiGAN(mel.to_dict(), **options, weight_norm=False)
    _fill(model, _hifigan_names(model), tensors, weights)
    return model.eval()


def read_melgan(weights: str | Path) -> MelGAN:
    """A generator of the authors' repository; its log10 mel becomes ours by rescaling the first convolution.

    Args:
        weights: torch file holding the bare state dict.
    Raises: FileNotFoundError; ValueError: not such a checkpoint; names the first tensor that differs.
    """
    tensors = _tensors(weights, None)
    model = MelGAN(MelConfig(fmax=11025.0).to_dict(), weight_norm=False)
    _fill(model, _melgan_names(model), tensors, weights)
    first = model.chain.layers[0]
    assert isinstance(first, Conv)
    with torch.no_grad():
        first.weight.div_(torch.log(torch.tensor(10.0)))
    return model.eval()


def _loaded(path: str | Path) -> Mapping[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a readable torch checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path}: not a state dict of tensors")
    return loaded


def _tensors(path: str | Path, key: str | None) -> dict[str, Tensor]:
    loaded: Any = _loaded(path)
    if key is not None:
        if key not in loaded:
            raise ValueError(f"{path}: no '{key}' in the checkpoint; choose the generator's file")
        loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: not a state dict of tensors")
    return dict(loaded)


def _hifigan_options(settings: Mapping[str, Any]) -> tuple[MelConfig, dict[str, Any]]:
    strides, kernels = settings["upsample_rates"], settings["upsample_kernel_sizes"]
    if list(kernels) != [2 * stride for stride in strides]:
        raise ValueError(f"upsample_kernel_sizes {kernels} are not twice upsample_rates {strides}")
    if settings["win_size"] != settings["n_fft"]:
        raise ValueError(f"win_size {settings['win_size']} is not n_fft {settings['n_fft']}")
    rate = settings["sampling_rate"]
    mel = MelConfig(
        sample_rate=rate,
        n_fft=settings["n_fft"],
        hop=settings["hop_size"],
        n_mels=settings["num_mels"],
        fmin=float(settings["fmin"]),
        fmax=rate / 2 if settings["fmax"] is None else float(settings["fmax"]),
    )
    options = {
        "channels": settings["upsample_initial_channel"],
        "strides": strides,
        "kernels": settings["resblock_kernel_sizes"],
        "dilations": settings["resblock_dilation_sizes"],
        "paired": str(settings["resblock"]) == "1",
    }
    return mel, options


def _hifigan_names(model: HiFiGAN) -> Iterator[tuple[str, nn.Module]]:
    """Published prefix and our layer, for every layer with weights."""
    stage = -1
    for layer in model.chain:
        if isinstance(layer, Up):
            stage += 1
            yield f"ups.{stage}", layer
        elif isinstance(layer, Mean):
            count = len(layer.branches)
            for number, branch in enumerate(layer.branches):
                assert isinstance(branch, Chain)
                for step, block in enumerate(branch):
                    convs = list(block.body)
                    names = ["convs"] if len(convs) == 1 else ["convs1", "convs2"]
                    for name, conv in zip(names, convs, strict=True):
                        yield f"resblocks.{stage * count + number}.{name}.{step}", conv
        elif isinstance(layer, Conv):
            yield "conv_pre" if stage < 0 else "conv_post", layer


def _melgan_names(model: MelGAN) -> Iterator[tuple[str, nn.Module]]:
    # The published generator is one nn.Sequential: pad, conv, then per stage activation, upsampling and three blocks.
    number = 1
    for layer in model.chain:
        if isinstance(layer, Residual):
            dilated, plain = layer.body
            assert layer.shortcut is not None
            yield f"model.{number}.block.2", dilated
            yield f"model.{number}.block.4", plain
            yield f"model.{number}.shortcut", layer.shortcut
            number += 1
        elif isinstance(layer, Up):
            yield f"model.{number}", layer
            number += 1
        elif isinstance(layer, Conv):
            yield f"model.{number}", layer
            number += 1
        if isinstance(layer, Conv | Residual):
            number += _between(model, layer)


def _between(model: MelGAN, layer: nn.Module) -> int:
    """Places without weights after a layer: an activation before upsampling, activation and padding before the end."""
    layers = list(model.chain)
    following = layers[layers.index(layer) + 1]
    if isinstance(following, Up):
        return 1
    return 2 if isinstance(following, Conv) else 0


def _fill(model: nn.Module, names: Iterator[tuple[str, nn.Module]], tensors: dict[str, Tensor], path: Any) -> None:
    """Copies fused weights; every tensor of the file must be wanted and every one wanted be there, finite, in shape."""
    left = dict(tensors)

    def take(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in left:
            raise ValueError(f"{path}: tensor '{name}' is missing; weights and configuration differ")
        tensor = left.pop(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{path}: tensor '{name}' has shape {tuple(tensor.shape)}, the configuration makes it {shape}; "
                "choose the config.json that came with the weights"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: tensor '{name}' holds NaN or infinity")
        return tensor.double()

    with torch.no_grad():
        for prefix, layer in names:
            assert isinstance(layer, Conv | Up)
            shape = tuple(layer.weight.shape)
            layer.bias.copy_(take(f"{prefix}.bias", tuple(layer.bias.shape)))
            if f"{prefix}.weight" in left:
                layer.weight.copy_(take(f"{prefix}.weight", shape))
                continue
            scale = take(f"{prefix}.weight_g", (shape[0], 1, 1))
            direction = take(f"{prefix}.weight_v", shape)
            layer.weight.copy_(direction * (scale / direction.flatten(1).norm(dim=1)[:, None, None]))
    if left:
        raise ValueError(f"{path}: tensor '{sorted(left)[0]}' is unknown to the configuration; they differ")
