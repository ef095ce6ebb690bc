"""Leaders: the items that may still be among a query's k best, kept until their scores are computed as defined.

Matrix products in float32 add in an order that differs with the place of a row in its tile, so their last
bits depend on blocks and shards. They serve to drop what is behind k others by more than the rounding error;
the few items left are scored by `defined_score`, which depends on the two vectors alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.topk import is_worse, kth_smallest, offer, sort_heap

CHUNK = 64  # scores that are looked at in one go
SPARE_SLOTS = 2 * CHUNK  # so that there is room for a chunk once the hopeless are dropped


class Vectors(NamedTuple):
    """Query vectors (q, d) and item vectors (n, d), float32."""

    queries: NDArray[np.float32]
    items: NDArray[np.float32]


class Leaders(NamedTuple):
    """Items of each query that may be among its k best, by ascending row, and approximate scores, (q, capacity).

    `counts`, (q,), of them are filled; only approximate scores above `limits`, (q,), can enter; `slacks`,
    (q,), is how far one can be below the k-th and still be among the k best, 0 where scores are as defined.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    limits: NDArray[np.float32]
    slacks: NDArray[np.float64]


def no_leaders(slacks: NDArray[np.float64], k: int) -> Leaders:
    """Give empty lists for queries with these slacks."""
    shape = slacks.size, 2 * k + SPARE_SLOTS
    return Leaders(
        np.empty(shape, np.float32),
        np.empty(shape, np.int64),
        np.zeros(slacks.size, np.int64),
        np.full(slacks.size, -np.inf, np.float32),
        slacks,
    )


@compiled
def defined_score(vectors: Vectors, query: int, row: int) -> np.float32:
    """Score of an item: the dot product summed in float64 by ascending dimension, rounded to float32."""
    score = 0.0
    for dimension in range(vectors.queries.shape[1]):
        score += np.float64(vectors.queries[query, dimension]) * np.float64(vectors.items[row, dimension])
    return np.float32(score)


@compiled
def drop_hopeless(leaders: Leaders, query: int, k: int, vectors: Vectors) -> None:
    """Drop the items of a query that cannot be among its k best, and raise its limit."""
    count = leaders.counts[query]
    if count < k:
        return
    scores, rows = leaders.scores[query], leaders.rows[query]
    kth = -kth_smallest(-scores[:count], k)
    floor = kth - leaders.slacks[query]
    kept = 0
    for slot in range(count):
        scores[kept], rows[kept] = scores[slot], rows[slot]
        kept += scores[slot] >= floor
    leaders.counts[query] = kept
    if kept > k + CHUNK // 2:  # a flood of nearly equal scores
        kth = _keep_best(leaders, query, k, vectors)
    leaders.limits[query] = _limit_below(kth, leaders.slacks[query])


@compiled
def _limit_below(kth: float, slack: float) -> np.float32:
    # Rows ascend: without rounding errors one that equals the k-th comes too late.
    if slack == 0.0:
        return np.float32(kth)
    return np.float32(np.nextafter(np.float32(kth - slack), np.float32(-np.inf)))


@compiled
def best_defined(
    leaders: Leaders, query: int, vectors: Vectors, scores: NDArray[np.float32], rows: NDArray[np.int64]
) -> int:
    """Fill a heap (scores, rows) with the best of a query's items by their defined scores; give its size."""
    size = 0
    for slot in range(leaders.counts[query]):
        row = leaders.rows[query, slot]
        leaders.scores[query, slot] = defined_score(vectors, query, row)
        size = offer(scores, rows, size, leaders.scores[query, slot], row)
    return size


@compiled
def _keep_best(leaders: Leaders, query: int, k: int, vectors: Vectors) -> float:
    best_scores, best_rows = np.empty(k, np.float32), np.empty(k, np.int64)
    best_defined(leaders, query, vectors, best_scores, best_rows)
    kept = 0
    for slot in range(leaders.counts[query]):
        score, row = leaders.scores[query, slot], leaders.rows[query, slot]
        if not is_worse(score, row, best_scores[0], best_rows[0]):
            leaders.scores[query, kept], leaders.rows[query, kept] = score, row
            kept += 1
    leaders.counts[query] = kept
    kth: float = best_scores[0]
    return kth


@compiled
def report_best(
    leaders: Leaders,
    vectors: Vectors,
    first_item: int,
    k: int,
    scores: NDArray[np.float32],
    items: NDArray[np.int64],
) -> None:
    """Fill the queries' lists, (q, k) of padding, with their best items, best first."""
    for query in range(leaders.counts.size):
        drop_hopeless(leaders, query, k, vectors)
        size = best_defined(leaders, query, vectors, scores[query], items[query])
        sort_heap(scores[query], items[query], size)
        items[query, :size] += first_item
