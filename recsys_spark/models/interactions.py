"""The pairs a model learns from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.errors import RecsysError

_PAIRS_AT_ONCE = 2**20


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """User-item pairs with a rating, sorted by user and item whatever order they come in.

    12 bytes a pair, and as much again while they are sorted. With `scratch`, a local folder, arrays as long as the
    pairs that are made from these are mapped files of it and not memory (`make_array`).

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
    scratch: Path | None = None

    def __post_init__(self) -> None:
        if not len(self.user_idx) == len(self.item_idx) == len(self.rating):
            raise ValueError(
                "user_idx, item_idx and rating must be of one length, "
                f"got {len(self.user_idx)}, {len(self.item_idx)} and {len(self.rating)}"
            )
        # Checked here because compiled training code returns some row for an index out of range.
        _check_range("user_idx", self.user_idx, self.n_users)
        _check_range("item_idx", self.item_idx, self.n_items)
        if not all(np.isfinite(self.rating[part]).all() for part in parts_of(len(self))):
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
        return np.diff(self.indptr())

    def item_counts(self) -> NDArray[np.int64]:
        """Pairs of each item, (n_items,): its popularity."""
        return count_positions(self.item_idx, self.n_items)

    def indptr(self) -> NDArray[np.int64]:
        """Where each user's pairs start, (n_users + 1,): with `item_idx` the CSR matrix of seen items."""
        return np.searchsorted(self.user_idx, np.arange(self.n_users + 1, dtype=np.int32)).astype(np.int64)

    def make_array(self, dtype: Any, size: int) -> NDArray[Any]:
        """An array to fill: a mapped file when there is a folder for such, else memory."""
        return make_array(self.scratch, dtype, size)


def make_array(folder: Path | None, dtype: Any, size: int) -> NDArray[Any]:
    """An array to fill: of a file in a local folder, which goes with the array, or of memory without a folder.

    Raises:
        RecsysError: the disk has no room for it.
    """
    if folder is None or size == 0:  # nothing to map
        return np.empty(size, dtype)
    n_bytes = size * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder, prefix="recsys-spark-pairs-") as file:
        try:
            _reserve(file.fileno(), n_bytes)
        except OSError as error:
            raise RecsysError(
                f"{folder} has no room for {n_bytes:,} bytes of pairs to train on ({error.strerror}): "
                "free some, or let TMPDIR name a folder of another disk"
            ) from error
        return np.memmap(file, dtype, "w+", shape=(size,)).view(np.ndarray)


def _reserve(file: int, n_bytes: int) -> None:
    # Now, because a mapped file that finds the disk full later kills the process without a word.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)


def parts_of(size: int) -> Iterator[slice]:
    """Slices that make up an array of a size: what is computed from one at a time takes little memory."""
    yield from (slice(first, min(first + _PAIRS_AT_ONCE, size)) for first in range(0, size, _PAIRS_AT_ONCE))


def count_positions(idx: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """How often each position up to `size` occurs, (size,)."""
    counts = np.zeros(size, np.int64)
    for part in parts_of(len(idx)):
        counts += np.bincount(idx[part], minlength=size)
    return counts


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
    is_item = pairs.item_counts() >= min_item_interactions
    user_counts = np.zeros(pairs.n_users, np.int64)
    for part in parts_of(len(pairs)):
        user_counts += np.bincount(pairs.user_idx[part][is_item[pairs.item_idx[part]]], minlength=pairs.n_users)
    is_user = user_counts >= min_user_interactions
    if not (is_user & (user_counts > 0)).any():
        raise NothingToTrainError(
            f"no interactions are left to train on: {len(pairs)} pairs, model.min_user_interactions = "
            f"{min_user_interactions}, model.min_item_interactions = {min_item_interactions}"
        )
    return _compact(pairs, is_user, is_item, int(user_counts[is_user].sum()))


def _compact(pairs: TrainingPairs, is_user: NDArray[np.bool_], is_item: NDArray[np.bool_], n_kept: int) -> TrainedPart:
    """The pairs of some users with some items, of which there are so many; users and items without any are left out."""
    users, items = np.zeros(pairs.n_users, bool), np.zeros(pairs.n_items, bool)
    for part in parts_of(len(pairs)):
        user_idx, item_idx = pairs.user_idx[part], pairs.item_idx[part]
        is_kept = is_user[user_idx] & is_item[item_idx]
        users[user_idx[is_kept]] = items[item_idx[is_kept]] = True
    if n_kept == len(pairs) and users.all() and items.all():
        return TrainedPart(pairs, pairs, np.arange(pairs.n_users), np.arange(pairs.n_items))
    places = [np.cumsum(is_present, dtype=np.int32) - 1 for is_present in (users, items)]
    kept = [pairs.make_array(array.dtype, n_kept) for array in (pairs.user_idx, pairs.item_idx, pairs.rating)]
    filled = 0
    for part in parts_of(len(pairs)):
        user_idx, item_idx = pairs.user_idx[part], pairs.item_idx[part]
        is_kept = is_user[user_idx] & is_item[item_idx]
        end = filled + int(is_kept.sum())
        kept[0][filled:end] = places[0][user_idx[is_kept]]
        kept[1][filled:end] = places[1][item_idx[is_kept]]
        kept[2][filled:end] = pairs.rating[part][is_kept]
        filled = end
    trained = TrainingPairs(kept[0], kept[1], kept[2], int(users.sum()), int(items.sum()), pairs.scratch)
    return TrainedPart(pairs, trained, np.flatnonzero(users), np.flatnonzero(items))


def _rises(user_idx: NDArray[np.int32], item_idx: NDArray[np.int32]) -> bool:
    for part in parts_of(max(len(user_idx) - 1, 0)):
        after = slice(part.start + 1, part.stop + 1)
        is_next_item = (user_idx[after] == user_idx[part]) & (item_idx[after] > item_idx[part])
        if not ((user_idx[after] > user_idx[part]) | is_next_item).all():
            return False
    return True


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
