"""Users whose behavior is to be reconstructed from that of their nearest users, in batches for Keras."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IDF_WEIGHTINGS, CsrRows, IndexLists, column_weights, weigh_rows
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.similarity import Similarity, ratings_of_neighbors
from recsys_spark.model_sections import SIMILARITY_BATCH_USERS
from recsys_spark.models.backend import keras
from recsys_spark.models.batches import round_up
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.sections import NeighborSettings

Places = NDArray[np.int32]

FOLDS = 5


class Neighborhoods(NamedTuple):
    """The nearest users of some users, nearest first: positions (q, k), -1 padded, and similarities (q, k), then 0."""

    neighbors: Places
    similarities: Floats

    def lists(self, queries: NDArray[np.intp]) -> tuple[IndexLists, Floats]:
        """Those of some of the users, as scoring takes them."""
        neighbors = self.neighbors[queries]
        indptr = np.arange(0, neighbors.size + 1, max(neighbors.shape[1], 1), dtype=np.int64)
        return IndexLists(indptr, neighbors.ravel()), self.similarities[queries].ravel()


class Inputs(NamedTuple):
    """What a step reads of b users with k neighbors each, p pairs to embed them by and t to reconstruct.

    Shapes: `pair_rows` (p,), the user of the batch that a pair is of, `pair_items` (p,), `pair_weights` (p,), 0 for
    filling; `neighbors` (b, k) rows, `similarities` (b, k), 0 for padding; `votes` (b, k), the sum of a neighbor's
    ratings of the items that the user is not embedded by; `target_rows` (t,); `ratings` (t, k), the neighbors' of the
    item to reconstruct.
    """

    pair_rows: Places
    pair_items: Places
    pair_weights: Floats
    neighbors: Places
    similarities: Floats
    votes: Floats
    target_rows: Places
    ratings: Floats


class NearestUsers:
    """Finds the nearest of all users, as the night does: the weighed rows of all are the candidates."""

    def __init__(self, rows: CsrRows, settings: NeighborSettings) -> None:
        self.rows, self._settings, self._columns = rows, settings, None
        self._mean_length = max(rows.nnz / rows.n_rows, 1.0)
        if settings.weighting in IDF_WEIGHTINGS:
            counts = np.bincount(rows.indices, minlength=rows.n_columns)
            self._columns = column_weights(counts, rows.n_rows, settings.weighting)
        self._candidates = self._weigh(rows)
        self._k = max(min(int(settings.k), rows.n_rows - 1), 1)

    def of(self, rows: CsrRows) -> Neighborhoods:
        """Of the users in their order, whose rows may be parts of those of the candidates; nobody is his own."""
        users = np.arange(rows.n_rows)
        nearest = nearest_rows(self._weigh(rows), users, self._candidates, 0, self._k)
        similarity = Similarity(self._settings.similarity, self._settings.bandwidth)
        similarities = np.where(nearest.indices < 0, np.float32(0), similarity.of(nearest.scores))
        return Neighborhoods(nearest.indices.astype(np.int32), similarities)

    def _weigh(self, rows: CsrRows) -> CsrRows:
        return weigh_rows(rows, self._settings.weighting, self._columns, self._mean_length)


class ReconstructionBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of `Inputs` and weights (t,), in an order of users that depends on seed and epoch only.

    A fifth of the pairs, another one in each of five epochs, is to be reconstructed; by the rest the users are embedded
    and their neighbors found, as of users whose next items are not known. A user's pairs weigh 1 together; users
    without a pair on both sides are left out. All batches are filled up at weight 0 to one shape, which only ever
    grows, because each new one is compiled.
    """

    def __init__(
        self, rows: CsrRows, search: NearestUsers, seed: int, batch_users: int = SIMILARITY_BATCH_USERS
    ) -> None:
        super().__init__(workers=1)
        self._rows, self._search, self._seed = rows, search, seed
        self._sums = np.bincount(np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr)), rows.values, rows.n_rows)
        self._fold_of = np.random.default_rng([seed, 3]).integers(0, FOLDS, rows.nnz, np.uint8)
        self._neighborhoods: dict[int, Neighborhoods] = {}
        self._batch_users, self._epoch = min(batch_users, rows.n_rows), 0
        self._folds = [fold for fold in range(FOLDS) if rows.n_rows > 1 and len(self._split(fold))]
        self._users, self._sizes = np.zeros(0, np.intp), [0, 0]
        if self._folds:
            self._draw()

    def _split(self, fold: int) -> NDArray[np.intp]:
        """Part known pairs from those to reconstruct; give the users who have both."""
        is_target = self._fold_of == fold
        self._known, self._targets = self._rows.select(~is_target), self._rows.select(is_target)
        return np.flatnonzero((np.diff(self._known.indptr) > 0) & (np.diff(self._targets.indptr) > 0))

    def _draw(self) -> None:
        fold = self._folds[self._epoch % len(self._folds)]
        users = self._split(fold)
        if fold not in self._neighborhoods:
            self._neighborhoods[fold] = self._search.of(self._known)
        self._near = self._neighborhoods[fold]
        self._users = np.random.default_rng([self._seed, 4, self._epoch]).permutation(users)
        largest = [self._largest(lists) for lists in (self._known, self._targets)]
        self._sizes = [max(sizes) for sizes in zip(self._sizes, largest, strict=True)]

    def _largest(self, lists: IndexLists) -> int:
        """Entries of the users of a batch, at most."""
        lengths = np.diff(lists.indptr)[self._users]
        return round_up(int(np.add.reduceat(lengths, np.arange(0, len(lengths), self._batch_users)).max()))

    def __len__(self) -> int:
        return -(-len(self._users) // self._batch_users)

    def __getitem__(self, batch: int) -> tuple[Inputs, Floats]:
        users = self._users[batch * self._batch_users : (batch + 1) * self._batch_users]
        known, targets = _rows_of(self._known, users), _rows_of(self._targets, users)
        neighbors = self._near.neighbors[users]
        seen = ratings_of_neighbors(self._rows, neighbors, known)
        votes = self._sums[neighbors] - np.add.reduceat(seen, known.indptr[:-1], axis=0)
        ratings = ratings_of_neighbors(self._rows, neighbors, targets)
        most_known, most_targets = self._sizes
        inputs = Inputs(
            _filled(_row_numbers(known), most_known),
            _filled(known.indices, most_known),
            _filled(np.ones(known.indices.size, np.float32), most_known),
            _filled(np.maximum(neighbors, 0), self._batch_users),
            _filled(self._near.similarities[users], self._batch_users),
            _filled(votes.astype(np.float32), self._batch_users),
            _filled(_row_numbers(targets), most_targets),
            _filled(ratings, most_targets),
        )
        lengths = np.diff(targets.indptr)
        return inputs, _filled(np.repeat(1.0 / lengths, lengths).astype(np.float32), most_targets)

    def on_epoch_end(self) -> None:
        """Go on to the next fifth."""
        self._epoch += 1
        self._draw()


def rows_of_pairs(pairs: TrainingPairs) -> CsrRows:
    """The pairs as rows of users; views, but for 8 bytes a user."""
    return CsrRows(pairs.indptr(), pairs.item_idx, pairs.rating, pairs.n_items)


def _rows_of(lists: IndexLists, users: NDArray[np.intp]) -> IndexLists:
    lengths, starts = np.diff(lists.indptr)[users], lists.indptr[users]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return IndexLists(indptr, lists.indices[np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)])


def _row_numbers(lists: IndexLists) -> Places:
    return np.repeat(np.arange(lists.n_rows, dtype=np.int32), np.diff(lists.indptr))


def _filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Zeros after the last row."""
    filled = np.zeros((size, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled
