"""Pairs of made-up shops, and a clock for epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
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

    def rated(self) -> TrainingPairs:
        """The same pairs with ratings of 0-1 in steps of a quarter, by tastes of four dimensions, users and items."""
        pairs, random = self.pairs(), np.random.default_rng(1)
        (users, of_users), (items, of_items) = (
            (random.standard_normal((rows, 4), np.float32), random.standard_normal(rows, np.float32))
            for rows in (self.users, self.items)
        )
        liked = np.einsum("pd,pd->p", users[pairs.user_idx], items[pairs.item_idx]) / 2
        liked += of_users[pairs.user_idx] + of_items[pairs.item_idx]
        noisy = 0.6 + 0.15 * (liked + random.standard_normal(len(pairs), np.float32))
        return replace(pairs, rating=(np.rint(4 * noisy.clip(0, 1)) / 4).astype(np.float32))


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
