"""Weights of a blend, learned from lists of candidates of which some turned out to be right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Weights = NDArray[np.float64]

PRIOR_USERS = 100.0  # as many as these hold the weights of a segment near those of all users


@dataclass(frozen=True, eq=False)
class CandidateLists:
    """Candidates of u users, one list after the other: list l is rows `indptr[l]` to `indptr[l + 1]`, int64 (u + 1,).

    `scores` (rows, c) float32, one column a component; `is_relevant` (rows,) bool; `n_relevant` (u,), found or not.
    """

    indptr: NDArray[np.int64]
    scores: NDArray[np.float32]
    is_relevant: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]

    @property
    def n_lists(self) -> int:
        """Number of users."""
        return len(self.indptr) - 1

    def some(self, chosen: NDArray[np.bool_]) -> "CandidateLists":
        """The lists that are chosen, (u,)."""
        lengths = np.diff(self.indptr)
        rows = np.repeat(chosen, lengths)
        indptr = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
        return CandidateLists(indptr, self.scores[rows], self.is_relevant[rows], self.n_relevant[chosen])


def learn_weights(lists: CandidateLists, near: Weights | None = None) -> Weights:
    """Weights w >= 0, (c,), of the components: most likely to pick the relevant candidates, by softmax of the sums w s.

    The loss is convex: the mean over the lists with a relevant candidate of -log softmax of these, averaged, plus
    `PRIOR_USERS` / lists x |w - near|^2 / 2 where weights are given to stay near to. Equal weights without such a list.
    """
    start = np.full(lists.scores.shape[1], 0.5) if near is None else near
    found = lists.some(_counts(lists.is_relevant, lists.indptr) > 0)
    if found.n_lists == 0:
        return start
    loss, pull = _ListwiseLoss(found), 0.0 if near is None else PRIOR_USERS / found.n_lists

    def objective(weights: Weights) -> tuple[float, Weights]:
        value, gradient = loss(weights)
        return value + pull * float(np.square(weights - start).sum()) / 2, gradient + pull * (weights - start)

    learned = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(start)).x
    return np.asarray(learned) if learned.any() else start


class _ListwiseLoss:
    """Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007, with one sum a list."""

    def __init__(self, lists: CandidateLists) -> None:
        self._starts, self._lengths = lists.indptr[:-1], np.diff(lists.indptr)
        self._scores = lists.scores.astype(np.float64)
        counts = np.repeat(_counts(lists.is_relevant, lists.indptr), self._lengths)
        self._wanted = lists.is_relevant / np.maximum(counts, 1)
        self._n_lists = lists.n_lists

    def __call__(self, weights: Weights) -> tuple[float, Weights]:
        """Value and gradient."""
        sums = self._scores @ weights
        sums -= np.repeat(np.maximum.reduceat(sums, self._starts), self._lengths)
        shares = np.exp(sums)
        totals = np.add.reduceat(shares, self._starts)
        shares /= np.repeat(totals, self._lengths)
        value = float(np.log(totals).sum() - self._wanted @ sums) / self._n_lists
        return value, (shares - self._wanted) @ self._scores / self._n_lists


def list_ndcgs(lists: CandidateLists, sums: NDArray[Any], k: int) -> NDArray[np.float64]:
    """NDCG@k of each list ordered by these sums, (rows,), (u,); of equal ones the earlier candidate ranks first."""
    owners = np.repeat(np.arange(lists.n_lists), np.diff(lists.indptr))
    order = np.lexsort((np.arange(len(sums)), -sums, owners))
    ranks = np.arange(len(sums)) - lists.indptr[owners]
    gains = np.where(ranks < k, lists.is_relevant[order] / np.log2(ranks + 2.0), 0.0)
    found = np.bincount(owners, gains, minlength=lists.n_lists)
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))])
    ndcgs: NDArray[np.float64] = found / np.maximum(ideal[np.minimum(lists.n_relevant, k)], ideal[1])
    return ndcgs


def _counts(is_relevant: NDArray[np.bool_], indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    before = np.concatenate([[0], np.cumsum(is_relevant)])
    return np.asarray(before[indptr[1:]] - before[indptr[:-1]])
