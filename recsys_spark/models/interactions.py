"""The pairs a model learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.errors import RecsysError


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """User-item pairs with a rating, sorted by user and item whatever order they come in.

    12 bytes a pair, and as much again while they are sorted.

    Shapes: `user_idx` (p,) int32, `item_idx` (p,) int32, `rating` (p,) float32 between 0 and 1.

    Raises:
        ValueError: arrays of different lengths, an index that is no integer or out of range, a rating that is no
            number, a pair given twice.
    """

    user_idx: NDArray[np.int32]
    item_idx: NDArray[np.int32]
    rating: NDArray[np.float32]
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        if not len(self.user_idx) == len(self.item_idx) == len(self.rating):
            raise ValueError(
                "user_idx, item_idx and rating must be of one length, "
                f"got {len(self.user_idx)}, {len(self.item_idx)} and {len(self.rating)}"
            )
        # Checked here because compiled training code returns some row for an index out of range.
        _check_range("user_idx", self.user_idx, self.n_users)
        _check_range("item_idx", self.item_idx, self.n_items)
        if not np.isfinite(self.rating).all():
            raise ValueError("rating holds values that are not numbers")
        self._sort()

    def _sort(self) -> None:
        users = np.ascontiguousarray(self.user_idx, np.int32)
        items = np.ascontiguousarray(self.item_idx, np.int32)
        ratings = np.ascontiguousarray(self.rating, np.float32)
        if not _rises(users, items):
            users, items, ratings = _sorted_by_counting(users, items, ratings, (self.n_users, self.n_items))
        object.__setattr__(self, "user_idx", users)
        object.__setattr__(self, "item_idx", items)
        object.__setattr__(self, "rating", ratings)

    def __len__(self) -> int:
        return len(self.user_idx)

    def user_counts(self) -> NDArray[np.int64]:
        """Pairs of each user, (n_users,)."""
        return np.bincount(self.user_idx, minlength=self.n_users)

    def item_counts(self) -> NDArray[np.int64]:
        """Pairs of each item, (n_items,): its popularity."""
        return np.bincount(self.item_idx, minlength=self.n_items)

    def indptr(self) -> NDArray[np.int64]:
        """Where each user's pairs start, (n_users + 1,): with `item_idx` the CSR matrix of seen items."""
        return np.concatenate([[0], np.cumsum(self.user_counts())])


class NothingToTrainError(RecsysError):
    """All pairs are below `model.min_user_interactions` or `model.min_item_interactions`, or there are none."""


@dataclass(frozen=True, eq=False)
class TrainedPart:
    """The pairs a model is trained on, re-indexed without gaps, and whom the new positions stand for.

    `users` (trained users,) and `items` (trained items,) are their positions in `all_pairs`, rising.
    """

    all_pairs: TrainingPairs
    pairs: TrainingPairs
    users: NDArray[np.intp]
    items: NDArray[np.intp]


def select_trained(pairs: TrainingPairs, min_user_interactions: int, min_item_interactions: int) -> TrainedPart:
    """Leave out items with fewer pairs than wanted, then users with fewer of the remaining pairs.

    Raises:
        NothingToTrainError: nothing is left.
    """
    is_kept = (pairs.item_counts() >= min_item_interactions)[pairs.item_idx]
    user_counts = np.bincount(pairs.user_idx[is_kept], minlength=pairs.n_users)
    is_kept &= (user_counts >= min_user_interactions)[pairs.user_idx]
    if not is_kept.any():
        raise NothingToTrainError(
            f"no interactions are left to train on: {len(pairs)} pairs, model.min_user_interactions = "
            f"{min_user_interactions}, model.min_item_interactions = {min_item_interactions}"
        )
    if is_kept.all() and pairs.user_counts().all() and pairs.item_counts().all():
        return TrainedPart(pairs, pairs, np.arange(pairs.n_users), np.arange(pairs.n_items))
    users, user_idx = _compact(pairs.user_idx[is_kept], pairs.n_users)
    items, item_idx = _compact(pairs.item_idx[is_kept], pairs.n_items)
    kept = TrainingPairs(user_idx, item_idx, pairs.rating[is_kept], len(users), len(items))
    return TrainedPart(pairs, kept, users, items)


def _compact(idx: NDArray[np.int32], size: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    is_present = np.zeros(size, dtype=bool)
    is_present[idx] = True
    positions = np.cumsum(is_present, dtype=np.int32) - 1
    return np.flatnonzero(is_present), positions[idx].astype(np.int32)


def _rises(user_idx: NDArray[np.int32], item_idx: NDArray[np.int32]) -> bool:
    is_next_item = (user_idx[1:] == user_idx[:-1]) & (item_idx[1:] > item_idx[:-1])
    return bool(((user_idx[1:] > user_idx[:-1]) | is_next_item).all())


def _sorted_by_counting(
    users: NDArray[np.int32], items: NDArray[np.int32], ratings: NDArray[np.float32], shape: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    # Over a sparse matrix, because sorting by keys takes 40 bytes a pair more.
    rows = sparse.coo_array((ratings, (users, items)), shape=shape).tocsr()
    if rows.nnz < len(ratings):
        raise ValueError("a pair of user_idx and item_idx is given twice")
    repeated = np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(rows.indptr))
    return repeated, rows.indices.astype(np.int32, copy=False), rows.data


def _check_range(name: str, idx: NDArray[np.int32], size: int) -> None:
    if not np.issubdtype(idx.dtype, np.integer):
        raise ValueError(f"{name} must hold whole numbers, got {idx.dtype}")
    if len(idx) and not (idx.min() >= 0 and idx.max() < size):
        position = int(np.flatnonzero((idx < 0) | (idx >= size))[0])
        raise ValueError(f"{name}[{position}] = {idx[position]} is out of range 0..{size - 1}")
