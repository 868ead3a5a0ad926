"""What a trained acoustic model makes of its own corpus: `python -m melstate.recipes.teacher_force run=runs/<name>`.

Writes runs/<name>/mels/<clip>.npy, log-mels (n_mels, T) on the recordings' frames (their durations, pitch and energy),
for experiments with data.predicted_mels=runs/<name>/mels: a vocoder fine-tuned on them learns to speak from this
model's mels, which are smoother than any recording's.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track

from melstate.recipes.data.batches import collate
from melstate.vocoders import checkpoint


def teacher_force(folder: str | Path, batch_size: int = 16) -> Path:
    """Write the mels of every clip of the run in `folder`; returns their folder."""
    folder = Path(folder)
    config: Any = OmegaConf.load(folder / "config.yaml")
    data = hydra.utils.instantiate(config.data, _convert_="all")
    data.setup()
    model: Any = hydra.utils.instantiate(config.task.model, _convert_="all").eval()
    checkpoint.restore(model, checkpoint.read(folder / "model.safetensors"))
    clips = sorted(data.train + data.dev, key=lambda clip: clip.features.mel.shape[1])
    target = folder / "mels"
    target.mkdir(exist_ok=True)
    for start in track(range(0, len(clips), batch_size), "teacher forcing", console=Console(stderr=True)):
        group = clips[start : start + batch_size]
        for clip, mel in zip(group, model.teacher_forced(collate(group)).numpy(), strict=True):
            buffer = io.BytesIO()
            np.save(buffer, mel[:, : clip.features.mel.shape[1]].astype(np.float32))
            checkpoint.write_atomic(target / f"{clip.id}.npy", buffer.getvalue())
    print(f"{target}: {len(clips)} mels")
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    config = OmegaConf.from_cli(list(sys.argv[1:] if arguments is None else arguments))
    if list(config) != ["run"]:
        raise SystemExit("usage: python -m melstate.recipes.teacher_force run=runs/<acoustic model>")
    teacher_force(config.run)


if __name__ == "__main__":
    main()
