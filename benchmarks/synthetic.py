"""Pairs of made-up shops, and a clock for epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_spark.models.backend import keras
from recsys_spark.models.interactions import TrainingPairs


@dataclass(frozen=True)
class Case:
    """So many users, items and interactions."""

    users: int
    items: int
    interactions: int

    @property
    def name(self) -> str:
        """As in `ials-1000k-100k`."""
        return f"ials-{self.users // 1000}k-{self.items // 1000}k"

    def pairs(self) -> TrainingPairs:
        """Users of all sizes, items of all popularities."""
        random = np.random.default_rng(0)
        sizes = random.lognormal(0.0, 1.0, self.users)
        lengths = np.maximum(1, sizes / sizes.mean() * self.interactions / self.users).astype(np.int64)
        popularity = random.permutation(1.0 / (np.arange(self.items) + 10.0) ** 0.8)
        drawn = np.searchsorted(np.cumsum(popularity / popularity.sum()), random.random(lengths.sum()))
        keys = np.unique(np.repeat(np.arange(self.users), lengths) * self.items + drawn.clip(0, self.items - 1))
        users, items = (part.astype(np.int32) for part in np.divmod(keys, self.items))
        return TrainingPairs(users, items, np.ones(len(keys), np.float32), self.users, self.items)


class Seconds(keras.callbacks.Callback):  # type: ignore[misc]
    """Wall seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop it."""
        self.each.append(time.perf_counter() - self._started)
