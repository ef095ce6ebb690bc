"""Weights of a blend, learned from lists of candidates of which some turned out to be right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize

from recsys_spark.kernels.jit import compiled, kernel_input

Weights = NDArray[np.float64]

PRIOR_USERS = 50.0
"""As many as these hold weights near to the likeliest, and those of a segment near to those of all users."""
LEAST_LISTS = 200
"""Segments of fewer have the weights of all users."""

SOFTNESS = 0.1
"""Of ranks, in standard deviations of the scores of a user's items: candidates nearer than that are about level."""

_FOLDS = 4
_LEAST_GAIN = 1e-8
_BEYOND = 12.0  # ranks behind the cut, where a rank gains a hundred thousandth
_TINY = 1e-300


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


def learn_weights(lists: CandidateLists) -> Weights:
    """Weights w >= 0, (c,), of the components: most likely to pick the relevant candidates, by softmax of the sums w s.

    The loss is convex: the mean over the lists with a relevant candidate of -log softmax of these, averaged. Equal
    weights without such a list.
    """
    start = np.full(lists.scores.shape[1], 0.5)
    found = lists.some(_counts(lists.is_relevant, lists.indptr) > 0)
    if found.n_lists == 0:
        return start
    learned = minimize(_ListwiseLoss(found), start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(start)).x
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

    Those of `rank_weights`; in a segment near to those of all users, which segments of few have.
    """
    return _near_overall(lists, numbers, n_segments, k, rank_weights(lists, k))


def _near_overall(
    lists: CandidateLists, numbers: NDArray[np.integer[Any]], n_segments: int, k: int, overall: Weights
) -> Weights:
    rows = []
    for number in range(n_segments):
        some = lists.some(numbers == number)
        is_large = n_segments > 1 and some.n_lists >= LEAST_LISTS
        rows.append(rank_weights(some, k, overall) if is_large else overall)
    return np.array(rows)


def cross_fitted_ndcgs(
    lists: CandidateLists, numbers: NDArray[np.integer[Any]], n_segments: int, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@k of each list, (u,), by weights of all users and by those of segments, learned from other folds."""
    folds = np.arange(lists.n_lists) % _FOLDS
    alike, by_segment = np.zeros(lists.n_lists), np.zeros(lists.n_lists)
    for fold in range(_FOLDS):
        is_here = folds == fold
        others, here = lists.some(~is_here), lists.some(is_here)
        overall = rank_weights(others, k)
        weights = _near_overall(others, numbers[~is_here], n_segments, k, overall)
        of_rows = np.repeat(weights[numbers[is_here]], np.diff(here.indptr), axis=0)
        alike[is_here] = list_ndcgs(here, here.scores @ overall, k)
        by_segment[is_here] = list_ndcgs(here, np.einsum("rc,rc->r", here.scores, of_rows), k)
    return alike, by_segment


def rank_weights(lists: CandidateLists, k: int, near: Weights | None = None) -> Weights:
    """Weights w >= 0, (c,), of a high mean NDCG@k with smooth ranks, scaled to be as likely as can be.

    A candidate's rank is the sum over the others of sigmoid((s - its own) / `SOFTNESS`), so that a rank's gain has a
    gradient: Qin et al., "A General Approximation Framework for Direct Optimization of Information Retrieval Measures",
    Information Retrieval 13, 2010. Here the cut at k is smooth as well, weights add up to 1, because their scale would
    make ranks ever less smooth, and stay near to those given, or else to the likeliest: less `PRIOR_USERS` / lists
    x |w - near|^2 / 2. Those given without a relevant candidate.
    """
    centre = learn_weights(lists) if near is None else near
    if not lists.is_relevant.any():
        return centre
    centre = centre / centre.sum()
    smooth, pull = _SmoothNdcg(lists, k), PRIOR_USERS / lists.n_lists

    def objective(weights: Weights) -> tuple[float, Weights]:
        value, gradient = smooth(weights)
        away = weights - centre
        return pull * float(away @ away) / 2 - value, pull * away - gradient

    weights = _on_the_simplex(objective, centre)
    sums = (lists.scores @ weights.astype(np.float32))[:, None]
    scale = learn_weights(CandidateLists(lists.indptr, sums, lists.is_relevant, lists.n_relevant))
    scaled: Weights = weights * scale
    return scaled


def _on_the_simplex(objective: Callable[[Weights], tuple[float, Weights]], start: Weights) -> Weights:
    """Weights >= 0 that add up to 1 where the objective is locally least."""
    result = minimize(
        objective,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(start),
        constraints=LinearConstraint(np.ones((1, len(start))), 1.0, 1.0),
        options={"ftol": _LEAST_GAIN},
    )
    weights = np.maximum(result.x, 0.0)
    return np.asarray(weights / weights.sum())


class _SmoothNdcg:
    """The mean over the lists of NDCG@k with smooth ranks."""

    def __init__(self, lists: CandidateLists, k: int) -> None:
        self._arrays = (
            kernel_input(lists.indptr, np.int64),
            kernel_input(lists.scores, np.float32),
            kernel_input(lists.is_relevant, np.bool_),
            kernel_input(lists.n_relevant, np.int64),
        )
        self._k = k

    def __call__(self, weights: Weights) -> tuple[float, Weights]:
        """Value and gradient."""
        value, gradient = _smooth_ndcg(*self._arrays, kernel_input(weights / SOFTNESS, np.float64), self._k)
        return value, gradient / SOFTNESS


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
def _smooth_ndcg(
    indptr: NDArray[np.int64],
    scores: NDArray[np.float32],
    is_relevant: NDArray[np.bool_],
    n_relevant: NDArray[np.int64],
    weights: NDArray[np.float64],
    k: int,
) -> tuple[float, NDArray[np.float64]]:
    ideals = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))
    value, gradient, slopes = 0.0, np.zeros(weights.size), np.zeros(weights.size)
    for number in range(n_relevant.size):
        first, end = indptr[number], indptr[number + 1]
        if not is_relevant[first:end].any():
            continue
        candidates = scores[first:end]
        sums = np.zeros(end - first)
        for component in range(weights.size):
            sums += candidates[:, component] * weights[component]
        # sigmoid(s - t) is exp(s) / (exp(s) + exp(t)): one exponential a candidate.
        powers = np.maximum(np.exp(sums - sums.max()), _TINY)
        for place in range(end - first):
            if not is_relevant[first + place]:
                continue
            rank = _smooth_rank(candidates, powers, place, slopes)
            beyond = rank - (k - 0.5)
            if beyond < _BEYOND:
                within, logarithm = 1.0 / (1.0 + np.exp(beyond)), np.log2(rank + 2.0)
                gain = within / logarithm / ideals[min(n_relevant[number], k) - 1]
                value += gain
                gradient -= gain * (1.0 / (logarithm * (rank + 2.0) * np.log(2.0)) + 1.0 - within) * slopes
    return value / n_relevant.size, gradient / n_relevant.size


@compiled
def _smooth_rank(
    scores: NDArray[np.float32], powers: NDArray[np.float64], place: int, slopes: NDArray[np.float64]
) -> float:
    """The rank of a candidate among the others, from 0 on; puts how it grows with each weight into `slopes`."""
    rank, all_slopes = -0.5, 0.0  # beside itself it is half a rank behind
    slopes[:] = 0.0
    for other in range(powers.size):
        share = powers[other] / (powers[other] + powers[place])
        slope = share * (1.0 - share)
        rank += share
        all_slopes += slope
        for component in range(slopes.size):
            slopes[component] += slope * scores[other, component]
    slopes -= all_slopes * scores[place]
    return rank


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
