"""Vocoders by the name that their checkpoints carry."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from melstate.vocoders import checkpoint
from melstate.vocoders.vocoder import Vocoder

KINDS = {
    "source_filter": "melstate.vocoders.source_filter:SourceFilter",
    "hifigan": "melstate.vocoders.hifigan:HiFiGAN",
    "istftnet": "melstate.vocoders.hifigan:ISTFTNet",
    "melgan": "melstate.vocoders.melgan:MelGAN",
    "vocos": "melstate.vocoders.istft:Vocos",
}


def load(path: str | Path) -> Vocoder:
    """The vocoder of a .safetensors checkpoint, in eval mode. Raises what `checkpoint.read` and `build` raise."""
    return cast(Vocoder, checkpoint.build(checkpoint.read(path), KINDS))
