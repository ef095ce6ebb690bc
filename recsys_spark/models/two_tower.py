"""The embedding model with users that are pooled from their items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.pooling import pool_rows, unit_rows
from recsys_spark.models.backend import ops, tf
from recsys_spark.models.embedding import Batch, EmbeddingModel, Encoded, of_length_one
from recsys_spark.models.interactions import TrainingPairs

Tensor = Any

_KEPT_SHARE = 0.5


class TwoTowerModel(EmbeddingModel):
    """An `EmbeddingModel` whose users are the pooled vectors of their items, with `has_own` plus vectors of their own.

    A step pools a random half of a user's pairs and learns to rank the other half, so that no pair tells of itself.
    As in Covington et al., RecSys 2016, with one table for both sides, and Liang et al., WWW 2018, for the halves.
    """

    def __init__(self, pairs: TrainingPairs, embedding_dim: int, is_cosine: bool, has_own: bool, seed: int) -> None:
        super().__init__(pairs.n_users, pairs.n_items, embedding_dim, is_cosine)
        self.users.vectors.trainable = has_own
        self.users.biases.trainable = False
        self._rows = CsrRows(pairs.indptr(), pairs.item_idx, pairs.rating, pairs.n_items)
        self._seed = seed

    def encode_users(self, batch: Batch, step: Tensor) -> tuple[Encoded, Tensor]:
        """As in `EmbeddingModel`."""
        (user_idx, rows, item_idx), _, weight = batch
        # Below 0, because the sampler of negatives takes the seeds from 0 on.
        seed = tf.stack([tf.constant(-1 - self._seed, tf.int32), tf.cast(step, tf.int32)])
        is_kept = tf.cast(tf.random.stateless_uniform(tf.shape(rows), seed) < _KEPT_SHARE, tf.float32) * weight
        n_users = tf.shape(user_idx)[0]
        counts = tf.math.unsorted_segment_sum(is_kept, rows, n_users)
        vectors = self.items(item_idx).vectors * is_kept[:, None]
        pooled = tf.math.unsorted_segment_sum(vectors, rows, n_users) * ops.rsqrt(ops.maximum(counts, 1.0))[:, None]
        pooled += ops.take(self.users.vectors, user_idx, axis=0)
        if self.users.is_unit:
            pooled = of_length_one(pooled)
        return Encoded(pooled, ops.zeros_like(pooled[:, 0])), 1.0 - is_kept

    def read_users(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As in `EmbeddingModel`, from all pairs."""
        vectors = pool_rows(self._rows, self.items.read()[0]) + self.users.vectors.numpy()
        return unit_rows(vectors) if self.users.is_unit else vectors, self.users.biases.numpy()
