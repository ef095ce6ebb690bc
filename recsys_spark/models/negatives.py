"""Negatives sampled inside the compiled step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import ops, steps
from recsys_spark.models.interactions import TrainingPairs

Tensor = Any

BITS_PER_PAIR = 16
SMALLEST_FILTER = 2**23
SMALLEST_TABLE, PLACES_AN_ITEM = 2**20, 16
_CHUNK = 2**18
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
        self._bits = ops.convert_to_tensor(bits)

    def _slots(self, user_idx: Any, item_idx: Any) -> Any:
        """The bit of each pair; plain arithmetic, so that NumPy and what Keras runs on give the same."""
        if self._is_exact:
            return user_idx * self._n_items + item_idx
        mixed = user_idx * _MULTIPLIERS[0] + item_idx * _MULTIPLIERS[1]
        return (mixed // 2**20) % self._size

    def contains(self, user_idx: Tensor, item_idx: Tensor) -> Tensor:
        """Whether each pair was seen, boolean of the shape of both; inside a compiled step."""
        slots = self._slots(ops.cast(user_idx, "int64"), ops.cast(item_idx, "int64"))
        byte = ops.cast(ops.take(self._bits, slots // 8), "int32")
        return ops.bitwise_and(ops.right_shift(byte, ops.cast(slots % 8, "int32")), 1) > 0


class ItemSampler:
    """Draws items in proportion to their count to the power of an exponent: 0 draws uniformly, 1 as users do.

    From a table in which an item has as many places as it is likely, and at least one; 0 needs none. Mikolov et al.,
    NIPS 2013.
    """

    def __init__(self, item_counts: NDArray[np.int64], exponent: float, seed: int) -> None:
        self._seed = seed
        weights = np.maximum(item_counts, 1).astype(np.float64) ** exponent
        size = max(SMALLEST_TABLE, PLACES_AN_ITEM * len(weights))
        places = np.maximum(np.rint(weights / weights.sum() * size), 1).astype(np.int64)
        if exponent == 0:
            places[:] = 1
        self._size = int(places.sum())
        self._table = (
            ops.convert_to_tensor(np.repeat(np.arange(len(places), dtype=np.int32), places)) if exponent > 0 else None
        )
        self.shares = (places / self._size).astype(np.float32)
        """The probability of each item, (items,)."""

    def draw(self, shape: Any, step: Tensor) -> Tensor:
        """Items of a shape, int32: a pure function of seed and step; inside a compiled step."""
        drawn = steps.draw_integers(shape, self._seed, step, self._size)
        return drawn if self._table is None else ops.take(self._table, drawn)


class NegativeSampler:
    """Draws negatives of each user; items the user has are drawn but flagged, so that shapes stay static."""

    def __init__(self, pairs: TrainingPairs, negatives: int, sampler: ItemSampler) -> None:
        self._seen = SeenFilter(pairs)
        self._negatives = negatives
        self._sampler = sampler

    def sample(self, user_idx: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Items (b, k) int32 and whether each is a true negative (b, k), a pure function of seed and step."""
        items = self._sampler.draw((ops.shape(user_idx)[0], self._negatives), step)
        return items, ops.logical_not(self._seen.contains(user_idx[:, None], items))


class Shared(NamedTuple):
    """Items that the users of a batch share as negatives.

    Shapes: `items` (k,) int32, `is_negative` (u, k) boolean, whether each is a true negative of each user,
    `log_expected` (k,) the logarithm of how often each item is expected among the k.
    """

    items: Tensor
    is_negative: Tensor
    log_expected: Tensor


class SharedNegatives:
    """Negatives that all users of a batch share: drawn ones, and those that the batch's pairs are of, when wanted.

    Wanted, an item is expected as often as it is drawn and as its pairs are in a batch. Yang et al., WWW 2020.
    """

    def __init__(
        self, pairs: TrainingPairs, negatives: int, sampler: ItemSampler, in_batch: bool, batch_size: int
    ) -> None:
        self._seen = SeenFilter(pairs)
        self._negatives, self._sampler, self._in_batch = negatives, sampler, in_batch
        expected = negatives * sampler.shares
        if in_batch:
            expected = expected + (batch_size / len(pairs) * pairs.item_counts()).astype(np.float32)
        self._log_expected = ops.convert_to_tensor(np.log(expected).astype(np.float32))

    def choose(self, inputs: tuple[Tensor, ...], step: Tensor) -> Shared:
        """Those of a batch of `UserBatches`: user positions (u,), rows (b,) and item positions (b,)."""
        users, _, batch_items = inputs
        items = self._sampler.draw((self._negatives,), step)
        if self._in_batch:
            items = ops.concatenate([items, ops.cast(batch_items, "int32")])
        is_negative = ops.logical_not(self._seen.contains(users[:, None], items[None, :]))
        return Shared(items, is_negative, ops.take(self._log_expected, items))


class AllItems:
    """All items as negatives, but for those that a user has in the batch."""

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items

    def choose(self, inputs: tuple[Tensor, ...], step: Tensor) -> Shared:
        """As `SharedNegatives.choose`."""
        users, rows, batch_items = inputs
        everything = ops.ones((ops.shape(users)[0], self._n_items))
        is_negative = ops.scatter_update(everything, ops.stack([rows, batch_items], axis=1), ops.zeros(ops.shape(rows)))
        return Shared(ops.arange(self._n_items, dtype="int32"), is_negative > 0, ops.zeros(self._n_items))
