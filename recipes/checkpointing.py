"""What makes a run resume exactly: atomic checkpoints, a seed for every batch, averaged weights."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.io import CheckpointIO
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints that are whole or absent: written aside, synced, then renamed. Read with weights_only=True."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=map_location, weights_only=True, mmap=False)
        except (RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class SeededSteps(pl.Callback):
    """Reseeds before every batch from (seed, batch number, rank), and counts batches in the data module.

    Dropout and other draws of batch k are then the same in a run that was killed and resumed as in one that was not.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        number = trainer.datamodule.batches_seen  # type: ignore[attr-defined]
        torch.manual_seed(hash((self.seed, number, trainer.global_rank)) & 0x7FFFFFFF)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.datamodule.batches_seen += 1  # type: ignore[attr-defined]


class ExponentialMovingAverage(WeightAveraging):
    """Averaged weights for validation, and under `state_dict` in checkpoints; see torch.optim.swa_utils."""

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the trained weights in place: copying the average over them would make the last checkpoint one that
        training cannot go on from."""


class LastCheckpoint(pl.Callback):
    """Saves to `path` every `minutes`, when training ends, and when it is interrupted. Must be the last callback."""

    def __init__(self, path: Path, minutes: float) -> None:
        self.path, self.seconds = path, 60 * minutes
        self.saved = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Rank 0's clock decides: saving is collective under some strategies.
        due = time.monotonic() - self.saved > self.seconds
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = time.monotonic()
