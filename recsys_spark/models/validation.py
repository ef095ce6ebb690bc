"""How well the model ranks what the users of the validation slice took next, and predicts how they rated it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.fold_in import places_of
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.models.interactions import TrainedPart, TrainingPairs

K = 10
LISTED_AT_ONCE = 1 << 20  # items in the lists of the users that are measured together, some 30 bytes each

BestItems = Callable[[NDArray[np.intp], IndexLists, int], NDArray[np.intp]]
"""Of users (q,), without the items they have seen, the k best: `EmbeddingModel.best_items`."""

RatePairs = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float32]]
"""Of users (p,) with one item each: `EmbeddingModel.rate_pairs`."""


class RankingValidation:
    """NDCG at `k` of full rankings over the trained items, without those a user was trained on.

    `users` (q,) are the users measured as positions in the trained part: those with validation pairs, a sample of
    `max_users` when they are more. Validation items that are not trained count as missed.
    `seen` are the items that each of them was trained on. Long lists are measured some users at a time.
    """

    def __init__(self, part: TrainedPart, validation: TrainingPairs, max_users: int, seed: int, k: int = K) -> None:
        self.k = k
        is_wanted = validation.user_counts()[part.users] > 0
        self.users = np.flatnonzero(is_wanted)
        if len(self.users) > max_users:
            self.users = np.sort(np.random.default_rng(seed).choice(self.users, max_users, replace=False))
        self._items = part.items
        self._item_counts = part.pairs.item_counts()
        self.seen = _lists(part.pairs, self.users)
        self._relevant = _lists(validation, part.users[self.users])

    def ndcg(self, best_items: BestItems) -> float:
        """Mean NDCG of what a model finds best."""
        step, parts = max(1, LISTED_AT_ONCE // self.k), []
        for first in range(0, len(self.users), step):
            end = min(first + step, len(self.users))
            best = best_items(self.users[first:end], self.seen.slice_rows(first, end), self.k)
            parts.append(self._ndcgs(best, self._relevant.slice_rows(first, end)))
        return float(np.concatenate(parts).mean())

    def ndcg_of(self, best: NDArray[np.intp]) -> float:
        """Mean NDCG of lists of trained items, (q, k), -1 for none."""
        return float(self._ndcgs(best, self._relevant).mean())

    def _ndcgs(self, best: NDArray[np.intp], relevant: IndexLists) -> NDArray[np.float64]:
        recommended = np.where(best < 0, -1, self._items[best])
        hits = hits_matrix(recommended, relevant)
        return ranking_metrics(hits, np.diff(relevant.indptr), [self.k])[f"ndcg@{self.k}"]

    def popularity_ndcg(self) -> float:
        """The same measure for the same users when everybody gets the most popular items."""
        everybody = np.ones((len(self.users), 1), dtype=np.float32)
        counts = self._item_counts.astype(np.float32)[:, None]
        return self.ndcg_of(score_top_k(everybody, counts, self.seen, self.k).indices)


class RatingValidation:
    """The error of predicted ratings, of the validation pairs whose user and item are trained: `pairs` of them."""

    def __init__(self, part: TrainedPart, validation: TrainingPairs) -> None:
        users, items = (
            places_of(np.isin(np.arange(size), known))
            for known, size in ((part.users, validation.n_users), (part.items, validation.n_items))
        )
        is_known = (users[validation.user_idx] >= 0) & (items[validation.item_idx] >= 0)
        self._users, self._items = users[validation.user_idx[is_known]], items[validation.item_idx[is_known]]
        self._ratings = validation.rating[is_known]
        self.pairs = len(self._ratings)

    def rmse(self, rate_pairs: RatePairs) -> float:
        """The root of the mean squared error; ratings are of 0-1."""
        errors = rate_pairs(self._users, self._items) - self._ratings
        return float(np.sqrt(np.mean(np.square(errors), dtype=np.float64)))


def _lists(pairs: TrainingPairs, users: NDArray[np.intp]) -> IndexLists:
    """The items of each of some users, ascending."""
    starts = pairs.indptr()
    first, lengths = starts[users], np.diff(starts)[users]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = np.arange(indptr[-1]) + np.repeat(first - indptr[:-1], lengths)
    return IndexLists(indptr, pairs.item_idx[places])
