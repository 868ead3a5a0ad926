"""Train one model: `python -m melstate.recipes.train experiment=kathleen/aligner`.

The run's folder is runs/<name>; started again with the same name, it goes on from its last checkpoint. At the end (and
with `export_only=true`, at once) the averaged weights are written to runs/<name>/model.safetensors.
Every key of configs/train.yaml can be overridden on the command line; trainer.* goes to lightning.pytorch.Trainer as it
stands, so `trainer.devices=8 trainer.num_nodes=2 trainer.strategy=ddp` trains on two machines of eight GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from melstate.kernels.memory import keep_freed_memory
from melstate.recipes.checkpointing import AtomicCheckpoints, ExponentialMovingAverage, LastCheckpoint, SeededSteps
from melstate.tts.text import symbols
from melstate.vocoders import checkpoint

LAST = "last.ckpt"
log = logging.getLogger(__name__)


def build_trainer(config: DictConfig, folder: Path) -> pl.Trainer:
    """The Trainer of a run: its callbacks save `folder`/last.ckpt every `checkpoint_minutes` and at the end."""
    options: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    bar = RichProgressBar() if config.progress == "rich" else TQDMProgressBar(refresh_rate=20)
    callbacks: list[pl.Callback] = [SeededSteps(config.seed), LearningRateMonitor("step")]
    if config.ema:
        callbacks.append(ExponentialMovingAverage(config.ema))
    if config.progress:
        callbacks.append(bar)
    callbacks.append(LastCheckpoint(folder / LAST, config.checkpoint_minutes))
    return pl.Trainer(
        **options,
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        enable_progress_bar=bool(config.progress),
        enable_checkpointing=False,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
    )


def initialise(task: pl.LightningModule, paths: Sequence[str], header: dict[str, Any]) -> None:
    """Start `task.model` from the weights of a .safetensors checkpoint of the same kind, and the same vocabulary; of
    several, from their mean."""
    saved, path = checkpoint.read_mean(paths), " + ".join(paths)
    model: Any = task.model
    if saved.kind != model.kind:
        raise ValueError(f"{path}: holds a '{saved.kind}', the experiment trains a '{model.kind}'; choose another")
    if saved.extra.get("tokens") != header.get("tokens"):
        raise ValueError(f"{path}: learned another vocabulary; train on the transcripts that it was trained on")
    checkpoint.restore(model, saved)


def train(config: DictConfig) -> Path:
    """Train as configured; returns the exported model's path."""
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    pl.seed_everything(config.seed, verbose=False)
    data: Any = hydra.utils.instantiate(config.data, _convert_="all")
    data.prepare_data()
    data.setup("fit")
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    task: Any = hydra.utils.instantiate(config.task, _convert_="all")
    if hasattr(task, "fit_symbols"):
        task.fit_symbols(data.train)
    last = folder / LAST
    header = data.header() if hasattr(data, "header") else {}
    if config.init_from and not last.is_file():
        start = config.init_from
        initialise(task, [start] if isinstance(start, str) else list(start), header)
    trainer = build_trainer(config, folder)
    if not config.export_only:
        if last.is_file():
            log.info("going on from %s", last)
        elif hasattr(task, "fit_statistics"):
            task.fit_statistics(data.train)
        trainer.fit(task, datamodule=data, ckpt_path=str(last) if last.is_file() else None)
    state = AtomicCheckpoints().load_checkpoint(last)
    task.load_state_dict(state["state_dict"])  # the averaged weights, where there is an average
    target = folder / "model.safetensors"
    if trainer.is_global_zero:
        extra = {"steps": state["global_step"], "run": config.name, "symbols": symbols.VERSION} | header
        checkpoint.save(target, task.model, extra=extra)
        log.info("wrote %s", target)
    return target


@hydra.main(version_base="1.3", config_path="pkg://melstate.recipes.configs", config_name="train")
def main(config: DictConfig) -> None:
    train(config)


if __name__ == "__main__":
    main()
