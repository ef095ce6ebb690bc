"""Batches of pairs for Keras: of any users, or users with all of their pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras
from recsys_spark.models.interactions import TrainingPairs

Batch = tuple[tuple[NDArray[np.int32], ...], NDArray[np.float32], NDArray[np.float32]]


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
    """Users with all of their pairs, in an order of users that depends on seed and epoch only; 8 bytes a pair.

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
        lengths = np.diff(self._starts)[users]
        moves = (self._starts[users] - (np.cumsum(lengths) - lengths)).astype(np.int32)
        self._users = users
        self._turns = np.repeat(np.arange(len(users), dtype=np.int32), lengths)  # of the pairs, in their new order
        self._order = np.repeat(moves, lengths)
        self._order += np.arange(len(self._pairs), dtype=np.int32)
        firsts = np.arange(0, len(self._pairs), self._batch_size)
        lasts = np.minimum(firsts + self._batch_size, len(self._pairs)) - 1
        self._n_users = round_up(1 + int((self._turns[lasts] - self._turns[firsts]).max()))

    def __len__(self) -> int:
        return -(-len(self._pairs) // self._batch_size)

    def __getitem__(self, batch: int) -> Batch:
        chosen = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
        places, turns = self._order[chosen], self._turns[chosen]
        users = np.resize(self._users[turns[0] : turns[-1] + 1], self._n_users)
        weights = (np.arange(self._batch_size) < len(places)).astype(np.float32)
        places, rows = np.resize(places, self._batch_size), np.resize(turns - turns[0], self._batch_size)
        return (users, rows, self._pairs.item_idx[places]), self._pairs.rating[places], weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._shuffle()


def round_up(users: int) -> int:
    """To a multiple of a quarter of a power of two, so that epochs differ little: each new shape is compiled."""
    quarter = 1 << max(0, users.bit_length() - 3)
    return -(-users // quarter) * quarter
