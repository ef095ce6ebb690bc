"""How lists are made of scores and measured: the same code for every model, the project's and others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.topk import TopK
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.models.interactions import TrainingPairs

USERS_AT_ONCE = 512

Floats = NDArray[np.float32]
Scores = Callable[[slice], Floats]
"""Of some users, (users, items); the caller may write into them."""
Lists = Iterator[tuple[slice, Floats]]
"""Scores of all items for some users at a time."""
Values = dict[str, NDArray[np.float64]]
"""Metrics like "ndcg@10" of each user, (users,), in the order of the users' indexes; nan with nothing to find."""
Measure = Callable[[Lists, TrainingPairs], Values]


def lists_of(scores: Scores, n_users: int) -> Lists:
    """All users, some at a time."""
    for start in range(0, n_users, USERS_AT_ONCE):
        users = slice(start, min(start + USERS_AT_ONCE, n_users))
        yield users, scores(users)


def best_places(scores: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """The places of the k best scores of each row, (rows, k), best first; of equal ones the smaller place.

    Raises:
        ValueError: a score is not a number.
    """
    top = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    if np.isnan(top).any():  # they sort behind all numbers
        raise ValueError("a score is not a number")
    bar = top[:, :1]
    is_best = scores >= bar
    crowded = np.flatnonzero(is_best.sum(axis=1) > k)
    is_level = scores[crowded] == bar[crowded]
    room = k - (scores[crowded] > bar[crowded]).sum(axis=1, keepdims=True)
    is_best[crowded] &= ~is_level | (np.cumsum(is_level, axis=1) <= room)
    places = np.nonzero(is_best)[1].reshape(-1, k)
    order = np.argsort(-np.take_along_axis(scores, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order, 1)


def values_of(best: NDArray[np.int64], relevant: IndexLists, metrics: Sequence[str]) -> Values:
    """Of each user, by lists (users, k) of what is best."""
    counts = np.diff(relevant.indptr)
    is_measured = counts > 0
    hits = hits_matrix(best, relevant)[is_measured]
    found = ranking_metrics(hits, counts[is_measured], sorted({int(name.partition("@")[2]) for name in metrics}))
    values = {name: np.full(len(counts), np.nan) for name in metrics}
    for name in metrics:
        values[name][is_measured] = found[name]
    return values


def means_of(values: Values) -> dict[str, float]:
    """Over the users with something to find."""
    return {name: round(float(np.nanmean(found)), 4) for name, found in values.items()}


def means(best: TopK, relevant: IndexLists, k: int, names: tuple[str, ...]) -> dict[str, float]:
    """The means of metrics at k."""
    return means_of(values_of(best.indices, relevant, [f"{name}@{k}" for name in names]))


def longest(metrics: Sequence[str]) -> int:
    """The longest list that is measured."""
    return max(int(name.partition("@")[2]) for name in metrics)


def over_all(test: Callable[[], TrainingPairs], metrics: Sequence[str]) -> Measure:
    """Ranked over all items that a user has not seen and whose score is not -inf; for users with something to find."""

    def measure(lists: Lists, train: TrainingPairs) -> Values:
        wanted, seen = test(), IndexLists(train.indptr(), train.item_idx)
        is_measured = wanted.user_counts() > 0
        best = np.full((train.n_users, longest(metrics)), -1, np.int64)
        for users, scores in lists:
            own = seen.slice_rows(users.start, users.stop)
            scores[np.repeat(np.arange(own.n_rows), np.diff(own.indptr)), own.indices] = -np.inf
            some = np.flatnonzero(is_measured[users])
            places = best_places(scores[some], best.shape[1])
            is_listed = np.take_along_axis(scores[some], places, 1) > -np.inf
            best[users.start + some] = np.where(is_listed, places, -1)
        return values_of(best, IndexLists(wanted.indptr(), wanted.item_idx), metrics)

    return measure


def among_given(given: Callable[[], NDArray[np.int64]], metrics: Sequence[str]) -> Measure:
    """The first of some items that are given to each user, (users, given), ranked among these.

    Of equal scores the smaller item index ranks first, wherever it is given; some items are given twice.
    """

    def measure(lists: Lists, train: TrainingPairs) -> Values:
        candidates = given()
        order = np.argsort(candidates, axis=1, kind="stable")
        ordered = np.take_along_axis(candidates, order, 1)
        best = np.zeros((train.n_users, longest(metrics)), np.int64)
        for users, scores in lists:
            best[users] = best_places(np.take_along_axis(scores, ordered[users], axis=1), best.shape[1])
        first = IndexLists(np.arange(len(order) + 1), np.argmin(order, axis=1))
        return values_of(best, first, metrics)

    return measure
