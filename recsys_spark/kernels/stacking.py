"""Weights of a blend, learned from lists of candidates of which some turned out to be right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recsys_spark.kernels.jit import compiled, kernel_input

Weights = NDArray[np.float64]

PRIOR_USERS = 100.0  # as many as these hold the weights of a segment near those of all users
LEAST_LISTS = 200
"""Segments of fewer have the weights of all users."""

_FOLDS = 4
_STEPS = (0.5, 0.25, 0.125)
_LEAST_GAIN = 1e-6


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


def weights_by_segment(lists: CandidateLists, numbers: NDArray[np.integer[Any]], n_segments: int, k: int) -> Weights:
    """The weights of the users of each segment, (n_segments, c), `numbers`, (u,), saying which they are in.

    Tuned for NDCG@k from the likeliest on, and from the best component alone; in a segment from the likeliest near to
    those of all users, and from these themselves. Segments of few have those of all.
    """
    overall = _best_tuned(lists, (learn_weights(lists), _best_component(lists, k)), k)
    rows = []
    for number in range(n_segments):
        some = lists.some(numbers == number)
        is_large = n_segments > 1 and some.n_lists >= LEAST_LISTS
        rows.append(_best_tuned(some, (learn_weights(some, overall), overall), k) if is_large else overall)
    return np.array(rows)


def _best_component(lists: CandidateLists, k: int) -> Weights:
    components = np.eye(lists.scores.shape[1])
    return np.asarray(max(components, key=lambda weights: _mean_ndcg(lists, weights, k)))


def _best_tuned(lists: CandidateLists, starts: tuple[Weights, ...], k: int) -> Weights:
    return max((tune_weights(lists, start, k) for start in starts), key=lambda weights: _mean_ndcg(lists, weights, k))


def cross_fitted_ndcgs(
    lists: CandidateLists, numbers: NDArray[np.integer[Any]], n_segments: int, k: int
) -> NDArray[np.float64]:
    """NDCG@k of each list, (u,), ordered by weights learned from the lists of other folds."""
    folds, ndcgs = np.arange(lists.n_lists) % _FOLDS, np.zeros(lists.n_lists)
    for fold in range(_FOLDS):
        is_here = folds == fold
        weights = weights_by_segment(lists.some(~is_here), numbers[~is_here], n_segments, k)
        here = lists.some(is_here)
        of_rows = np.repeat(weights[numbers[is_here]], np.diff(here.indptr), axis=0)
        ndcgs[is_here] = list_ndcgs(here, np.einsum("rc,rc->r", here.scores, of_rows), k)
    return ndcgs


def tune_weights(lists: CandidateLists, start: Weights, k: int) -> Weights:
    """Weights of a higher mean NDCG@k, (c,): coordinates move by steps as long as it rises, from `start` on.

    Likely weights order the lists well, but are not the best at their heads. Scaled to be as likely as can be.
    """
    if lists.n_lists == 0 or not start.any():
        return start
    weights = start / start.max()
    best = _mean_ndcg(lists, weights, k)
    for step in _STEPS:
        has_moved = True
        while has_moved:
            has_moved = False
            for place in range(len(weights)):
                for moved in (weights[place] + step, max(0.0, weights[place] - step)):
                    tried = weights.copy()
                    tried[place] = moved
                    found = _mean_ndcg(lists, tried, k) if tried.any() else 0.0
                    if found > best + _LEAST_GAIN:
                        best, weights, has_moved = found, tried, True
    sums = (lists.scores.astype(np.float64) @ weights).astype(np.float32)[:, None]
    scale = learn_weights(CandidateLists(lists.indptr, sums, lists.is_relevant, lists.n_relevant))
    tuned: Weights = weights * scale
    return tuned


def _mean_ndcg(lists: CandidateLists, weights: Weights, k: int) -> float:
    if lists.n_lists == 0:
        return 0.0
    return float(list_ndcgs(lists, lists.scores @ weights.astype(np.float32), k).mean())


def list_ndcgs(lists: CandidateLists, sums: NDArray[Any], k: int) -> NDArray[np.float64]:
    """NDCG@k of each list ordered by these sums, (rows,), (u,); of equal ones the earlier candidate ranks first."""
    gains = 1.0 / np.log2(np.arange(k) + 2.0)
    ndcgs: NDArray[np.float64] = _ndcgs(
        kernel_input(lists.indptr, np.int64),
        kernel_input(sums, np.float64),
        kernel_input(lists.is_relevant, np.bool_),
        kernel_input(lists.n_relevant, np.int64),
        gains,
    )
    return ndcgs


@compiled
def _ndcgs(
    indptr: NDArray[np.int64],
    sums: NDArray[np.float64],
    is_relevant: NDArray[np.bool_],
    n_relevant: NDArray[np.int64],
    gains: NDArray[np.float64],
) -> NDArray[np.float64]:
    ndcgs = np.zeros(n_relevant.size)
    for number in range(ndcgs.size):
        found = 0.0
        for row in range(indptr[number], indptr[number + 1]):
            if is_relevant[row]:
                rank = 0
                for other in range(indptr[number], indptr[number + 1]):
                    rank += (sums[other] > sums[row]) | ((sums[other] == sums[row]) & (other < row))
                if rank < gains.size:
                    found += gains[rank]
        if found > 0.0:
            ndcgs[number] = found / gains[: min(n_relevant[number], gains.size)].sum()
    return ndcgs


def _counts(is_relevant: NDArray[np.bool_], indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    before = np.concatenate([[0], np.cumsum(is_relevant)])
    return np.asarray(before[indptr[1:]] - before[indptr[:-1]])
