"""Batches of pairs for Keras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras
from recsys_spark.models.interactions import TrainingPairs

Batch = tuple[tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32], NDArray[np.float32]]


class PairBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of one size in an order that depends on seed and epoch only; 4 bytes a pair beside the pairs.

    A batch is ((user positions, item positions), ratings, weights), each (batch_size,). The last one is filled up
    by repeating its pairs at weight 0: one shape, one compilation. `epoch`, from 0, is the first.
    """

    def __init__(self, pairs: TrainingPairs, batch_size: int, seed: int, epoch: int = 0) -> None:
        super().__init__(workers=1)
        self._pairs = pairs
        self._batch_size = min(batch_size, len(pairs))
        self._seed = seed
        self._epoch = epoch
        self._shuffle()

    def _shuffle(self) -> None:
        order = np.arange(len(self._pairs), dtype=np.int32)
        np.random.default_rng([self._seed, self._epoch]).shuffle(order)
        self._order = order

    def __len__(self) -> int:
        return -(-len(self._pairs) // self._batch_size)

    def __getitem__(self, batch: int) -> Batch:
        first = batch * self._batch_size
        chosen = self._order[first : first + self._batch_size]
        weights = (np.arange(self._batch_size) < len(chosen)).astype(np.float32)
        chosen = np.resize(chosen, self._batch_size)
        pairs = self._pairs
        return (pairs.user_idx[chosen], pairs.item_idx[chosen]), pairs.rating[chosen], weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._shuffle()
