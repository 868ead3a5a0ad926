"""An endless loader whose k-th batch depends on (seed, k) alone: a resumed run sees the batches it would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class BatchSource(Protocol):
    def batch(self, index: int) -> Any:
        """The collated training batch number `index` ≥ 0, the same at every call."""


def generator(seed: int, *indices: int) -> np.random.Generator:
    """Independent random numbers for (seed, indices)."""
    return np.random.default_rng([seed, *indices])


class StepDataset(IterableDataset):
    """Batches start, start + 1, …; rank r of n processes takes every n-th, its workers every further one in turn."""

    def __init__(self, source: BatchSource, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.source, self.start, self.rank, self.world = source, start, rank, world

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        step, stride = (self.start, 1) if info is None else (self.start + info.id, info.num_workers)
        while True:
            yield self.source.batch(step * self.world + self.rank)
            step += stride


def step_loader(source: BatchSource, *, start: int, rank: int, world: int, workers: int) -> DataLoader:
    dataset = StepDataset(source, start, rank, world)
    return DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
