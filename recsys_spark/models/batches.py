"""Batches of pairs for Keras: of any users, or users with all of their pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras
from recsys_spark.models.interactions import TrainingPairs

Batch = tuple[tuple[NDArray[Any], ...], NDArray[Any], NDArray[Any]]


STEPS_AT_ONCE = 16  # between two of which Python has its turn, which takes as long as a small step


class StepGroups(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of another dataset one after another, in groups of one `size`, at most 16: arrays (s x b,) for (b,).

    The last group is filled up by its last batch at weight 0, from which nothing is learned.
    """

    def __init__(self, batches: PairBatches | UserBatches) -> None:
        super().__init__(workers=1)
        self._batches = batches
        self.size = -(-len(batches) // len(self))

    def __len__(self) -> int:
        return -(-len(self._batches) // STEPS_AT_ONCE)

    def __getitem__(self, group: int) -> Batch:
        first, n_batches = group * self.size, len(self._batches)
        listed = [self._batches[min(first + place, n_batches - 1)] for place in range(self.size)]
        # One after another, because Keras wants all but the first dimension to stay as they are in the first epoch.
        idx = tuple(np.concatenate(arrays) for arrays in zip(*(batch[0] for batch in listed), strict=True))
        ratings, weights = (np.concatenate([batch[part] for batch in listed]) for part in (1, 2))
        weights[(n_batches - first) * len(listed[0][2]) :] = 0.0
        return idx, ratings, weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._batches.on_epoch_end()


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


class UserBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Users with all of their pairs, in an order of users that depends on seed and epoch only; 20 bytes a user.

    A batch is ((user positions (u,), rows (batch_size,), item positions (batch_size,)), ratings, weights): pair p is of
    the user `rows[p]` of the batch. A user whose pairs do not fit goes on in the next batch. The last batch is filled
    up by repeating its pairs at weight 0, and all batches of an epoch to one number of users, by users without pairs.
    """

    def __init__(self, pairs: TrainingPairs, batch_size: int, seed: int, epoch: int = 0) -> None:
        super().__init__(workers=1)
        self._pairs = pairs
        self._starts = pairs.indptr()
        self._batch_size = min(batch_size, len(pairs))
        self._seed = seed
        self._epoch = epoch
        self._shuffle()

    def _shuffle(self) -> None:
        users = np.random.default_rng([self._seed, self._epoch]).permutation(self._pairs.n_users).astype(np.int32)
        self._users = users[np.diff(self._starts)[users] > 0]
        self._ends = np.cumsum(np.diff(self._starts)[self._users])  # of each user's pairs, one after the other
        firsts = np.arange(0, len(self._pairs), self._batch_size)
        lasts = np.minimum(firsts + self._batch_size, len(self._pairs)) - 1
        self._n_users = round_up(1 + int((self._turn_of(lasts) - self._turn_of(firsts)).max()))

    def _turn_of(self, place: NDArray[np.int64] | int) -> Any:
        """Whose turn it is at a place in the order of pairs."""
        return np.searchsorted(self._ends, place, side="right")

    def __len__(self) -> int:
        return -(-len(self._pairs) // self._batch_size)

    def __getitem__(self, batch: int) -> Batch:
        start = batch * self._batch_size
        stop = min(start + self._batch_size, len(self._pairs))
        turns = slice(self._turn_of(start), self._turn_of(stop - 1) + 1)
        users, ends = self._users[turns], self._ends[turns]
        # Where the pairs of each user that are in the batch begin and end, in the order of pairs.
        begins = np.concatenate([[start], ends[:-1]])
        lengths = np.minimum(ends, stop) - begins
        rows = np.repeat(np.arange(len(users), dtype=np.int32), lengths)
        moves = self._starts[users + 1] - ends  # from the order of pairs to where they lie
        places = np.arange(start, stop) + np.repeat(moves, lengths)
        weights = (np.arange(self._batch_size) < len(places)).astype(np.float32)
        users, places, rows = (
            np.resize(each, size)
            for each, size in ((users, self._n_users), (places, self._batch_size), (rows, self._batch_size))
        )
        return (users, rows, self._pairs.item_idx[places]), self._pairs.rating[places], weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._shuffle()


def round_up(users: int) -> int:
    """To a multiple of a quarter of a power of two, 16 at least: each shape is compiled, so few may differ."""
    quarter = max(16, 1 << max(0, users.bit_length() - 3))
    return -(-users // quarter) * quarter
