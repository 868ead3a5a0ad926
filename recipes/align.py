"""Frames per symbol of every clip, by a trained aligner: `python -m melstate.recipes.align run=runs/kathleen-aligner`.

A neural HMM is an aligner too, by its likeliest path. Writes runs/<name>/durations.npz (one int array a clip, summing
to its frames) for experiments with data.durations=…, and prints how sure one can be of them: the share of one-frame
phones, and the correlation of log-durations between two takes of one prompt, which no alignment of noise would have.
"""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track

from melstate.recipes.data.batches import Clip, collate
from melstate.recipes.models import Aligner, read_aligner
from melstate.tts.text import symbols
from melstate.vocoders import checkpoint


def align(aligner: Aligner, clips: Sequence[Clip], batch_size: int = 16) -> dict[str, np.ndarray]:
    """Durations by clip id."""
    clips = sorted(clips, key=lambda clip: clip.features.mel.shape[1])
    starts = range(0, len(clips), batch_size)
    result: dict[str, np.ndarray] = {}
    for start in track(starts, "aligning", console=Console(stderr=True)):
        group = clips[start : start + batch_size]
        durations = aligner.durations(collate(group)).numpy()
        result |= {clip.id: row[: len(clip.phones)] for clip, row in zip(group, durations, strict=True)}
    return result


def quality(durations: Mapping[str, np.ndarray], clips: Sequence[Clip]) -> dict[str, float]:
    """one_frame: share of phones given one frame; takes: correlation of log-durations of phones between two takes of
    the same symbols (NaN where no prompt has two)."""
    takes: dict[tuple[int, ...], list[str]] = defaultdict(list)
    phone = {symbols.ID[p] for p in symbols.PHONES}
    spoken = {clip.id: np.array([s in phone for s in clip.phones]) for clip in clips}
    for clip in clips:
        takes[clip.phones].append(clip.id)
    every = np.concatenate([durations[clip.id][spoken[clip.id]] for clip in clips])
    pairs = [
        np.log([durations[name][spoken[name]] for name in names[:2]]) for names in takes.values() if len(names) > 1
    ]
    correlation = float(np.corrcoef(np.concatenate(pairs, axis=1))[0, 1]) if pairs else float("nan")
    return {"one_frame": float((every == 1).mean()), "takes": correlation}


def align_run(folder: str | Path) -> Path:
    """Align the corpus that the run in `folder` was trained on; returns the path of durations.npz."""
    folder = Path(folder)
    config: Any = OmegaConf.load(folder / "config.yaml")
    data = hydra.utils.instantiate(config.data, _convert_="all")
    data.setup()
    aligner = read_aligner(folder / "model.safetensors")
    clips = data.train + data.dev
    durations = align(aligner, clips)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **durations)
    target = folder / "durations.npz"
    checkpoint.write_atomic(target, buffer.getvalue())
    figures = quality(durations, clips)
    print(
        f"{target}: {len(clips)} clips, {figures['one_frame']:.2%} one-frame phones, "
        f"log-durations of two takes correlate {figures['takes']:.3f}"
    )
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    config = OmegaConf.from_cli(list(sys.argv[1:] if arguments is None else arguments))
    if list(config) != ["run"]:
        raise SystemExit("usage: python -m melstate.recipes.align run=runs/<aligner>")
    align_run(config.run)


if __name__ == "__main__":
    main()
