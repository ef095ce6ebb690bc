"""Negatives sampled inside the compiled step."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_spark.models.backend import tf
from recsys_spark.models.interactions import TrainingPairs

Tensor = Any

BITS_PER_PAIR = 16
SMALLEST_FILTER = 2**23
_CHUNK = 2**22
_MULTIPLIERS = (0x9E3779B97F4A7C15 - 2**64, 0x2545F4914F6CDD1D)  # golden ratio and xorshift*, as int64


class SeenFilter:
    """Answers whether a user has an item from one bit in memory, without a search.

    One bit for each user-item pair when all fit in `BITS_PER_PAIR` bits a seen pair or 2^23 bits; else one bit for
    each hash of a pair (a Bloom filter with one hash): a seen pair is always found, an unseen one is taken for seen
    in at most 1 of `BITS_PER_PAIR` cases.
    """

    def __init__(self, pairs: TrainingPairs) -> None:
        self._n_items = pairs.n_items
        self._size = min(pairs.n_users * pairs.n_items, max(BITS_PER_PAIR * len(pairs), SMALLEST_FILTER))
        self._is_exact = self._size == pairs.n_users * pairs.n_items
        bits = np.zeros(-(-self._size // 8), dtype=np.uint8)
        for first in range(0, len(pairs), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            slots = self._slots(pairs.user_idx[chunk].astype(np.int64), pairs.item_idx[chunk].astype(np.int64))
            np.bitwise_or.at(bits, slots // 8, np.left_shift(1, slots % 8).astype(np.uint8))
        self._bits = tf.constant(bits)

    def _slots(self, user_idx: Any, item_idx: Any) -> Any:
        """The bit of each pair; plain arithmetic, so that NumPy and TensorFlow give the same."""
        if self._is_exact:
            return user_idx * self._n_items + item_idx
        mixed = user_idx * _MULTIPLIERS[0] + item_idx * _MULTIPLIERS[1]
        return (mixed // 2**20) % self._size

    def contains(self, user_idx: Tensor, item_idx: Tensor) -> Tensor:
        """Whether each pair was seen, boolean of the shape of both; inside a compiled step."""
        slots = self._slots(tf.cast(user_idx, tf.int64), tf.cast(item_idx, tf.int64))
        byte = tf.cast(tf.gather(self._bits, slots // 8), tf.int32)
        return tf.bitwise.bitwise_and(tf.bitwise.right_shift(byte, tf.cast(slots % 8, tf.int32)), 1) > 0


class NegativeSampler:
    """Draws items uniformly; those the user has are drawn but flagged, so that shapes stay static."""

    def __init__(self, pairs: TrainingPairs, negatives: int, seed: int) -> None:
        self._seen = SeenFilter(pairs)
        self._n_items = pairs.n_items
        self._negatives = negatives
        self._seed = seed

    def sample(self, user_idx: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Items (b, k) int32 and whether each is a true negative (b, k), a pure function of seed and step."""
        shape = (tf.shape(user_idx)[0], self._negatives)
        seed = tf.stack([tf.constant(self._seed, tf.int32), tf.cast(step, tf.int32)])
        items = tf.random.stateless_uniform(shape, seed, 0, self._n_items, tf.int32)
        users = tf.broadcast_to(user_idx[:, None], shape)
        return items, tf.logical_not(self._seen.contains(users, items))
