"""The embedding model with users that are pooled from their items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.pooling import pool_rows, unit_rows
from recsys_spark.models.backend import ops, steps
from recsys_spark.models.embedding import Batch, EmbeddingModel, EmbeddingTower, as_array
from recsys_spark.models.features import ItemFeatures
from recsys_spark.models.interactions import TrainingPairs

Tensor = Any
Floats = NDArray[np.float32]

_KEPT_SHARE = 0.5


class ItemTower(EmbeddingTower):
    """Items with a vector of their own plus the pooled vectors of their features."""

    def __init__(self, features: ItemFeatures, embedding_dim: int, is_unit: bool) -> None:
        padded = features.padded()
        super().__init__(len(padded), embedding_dim, "items", None if is_unit else 1, is_unit)
        width = self.table.shape[1]
        self.features = self.add_weight(shape=(features.size + 1, width), initializer="zeros", name="features")
        self.features.row_parts = self.table.row_parts[0], np.zeros(width, np.float32)
        self.n_features = features.size
        self._features, self._padded = features, ops.convert_to_tensor(padded)
        is_one = padded < features.size
        shares = is_one / np.sqrt(np.maximum(is_one.sum(axis=1, keepdims=True), 1))
        self._shares = ops.convert_to_tensor(shares.astype(np.float32))

    def call(self, idx: Tensor) -> Tensor:
        """As in `EmbeddingTower`."""
        own = steps.take_rows(self.table, idx)
        of_features = steps.take_rows(self.features, ops.take(self._padded, idx, axis=0))
        pooled = ops.sum(of_features * ops.take(self._shares, idx, axis=0)[..., None], axis=-2)
        return self.finish(own + pooled)

    def start(self, vectors: Floats, biases: Floats, features: Floats) -> None:
        """Give the features their vectors, (size, d), and the items what is left to the given, (items, d)."""
        self.assign(vectors - self._features.pool(features), biases)
        table = np.zeros(self.features.shape, np.float32)
        table[:-1, : self.embedding_dim] = features
        self.features.assign(table)

    def vectors(self) -> Floats:
        """As in `EmbeddingTower`, with those of the features."""
        of_features = np.ascontiguousarray(as_array(self.features)[:-1, : self.embedding_dim])
        together: Floats = super().vectors() + self._features.pool(of_features)
        return together


class TwoTowerModel(EmbeddingModel):
    """An `EmbeddingModel` whose users are the pooled vectors of their items, with `has_own` plus vectors of their own.

    A step pools a random half of a user's pairs and learns to rank the other half, so that no pair tells of itself.
    As in Covington et al., RecSys 2016, with one table for both sides, and Liang et al., WWW 2018, for the halves.
    With `features`, (items,), what is known of an item has a part in its vector.
    """

    def __init__(
        self,
        pairs: TrainingPairs,
        embedding_dim: int,
        is_cosine: bool,
        has_own: bool,
        seed: int,
        features: ItemFeatures | None = None,
    ) -> None:
        items = None if features is None else ItemTower(features, embedding_dim, is_cosine)
        super().__init__(pairs.n_users, pairs.n_items, embedding_dim, is_cosine, items=items)
        self.users.table.trainable = has_own
        self._rows = CsrRows(pairs.indptr(), pairs.item_idx, pairs.rating, pairs.n_items)
        self._seed = seed

    def encode_users(self, batch: Batch, step: Tensor) -> tuple[Tensor, Tensor]:
        """As in `EmbeddingModel`."""
        (user_idx, rows, item_idx), _, weight = batch
        # Below 0, because the sampler of negatives takes the seeds from 0 on.
        is_kept = steps.draw_uniform(ops.shape(rows), -1 - self._seed, step) < _KEPT_SHARE
        kept = ops.cast(is_kept, "float32") * weight
        n_users = ops.shape(user_idx)[0]
        counts = ops.segment_sum(kept, rows, n_users)
        sums = ops.segment_sum(self.items(item_idx) * kept[:, None], rows, n_users)
        pooled = sums * ops.rsqrt(ops.maximum(counts, 1.0))[:, None]
        return self.users.complete(pooled + steps.take_rows(self.users.table, user_idx)), 1.0 - kept

    def read_users(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As in `EmbeddingModel`, from all pairs."""
        vectors = pool_rows(self._rows, self.items.read()[0]) + self.users.vectors()
        return unit_rows(vectors) if self.users.is_unit else vectors, np.zeros(len(vectors), np.float32)
