"""Shortlists: the candidates that may still be among a query's k nearest, kept until distances are verified.

An approximate squared distance is off by no more than a known bound. A candidate is dropped only when it is
farther than k others by more than that bound, so the exact k nearest always stay. Distances are computed as
defined, "verified", for the few left at the end, or earlier when so many are nearly equal that the bound
cannot separate them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.pairs import Pairs, measure
from recsys_spark.kernels.topk import is_worse, kth_smallest, offer, sort_heap

SPARE_SLOTS = 128
SLOT_BYTES = 13
MOST_RANKED = 256
PASS_BYTES = 1 << 28
NO_LIMIT = np.finfo(np.float64).max  # finite, so that a padding distance of inf is above it
NO_ROW_LIMIT = np.iinfo(np.int64).max


class Shortlists(NamedTuple):
    """Open candidates of each query: squared distances and rows, (q, capacity), of which `counts` are filled.

    A candidate can enter while its approximate squared distance is at most `limits`, (q,), and, if it equals
    it, its row is below `limit_rows`, (q,). `slacks`, (q,), is what the bound adds to the k-th: 0 when the
    arithmetic is exact. `is_verified` marks squared distances that are already as defined.
    """

    squared: NDArray[np.float64]
    rows: NDArray[np.int32]
    is_verified: NDArray[np.bool_]
    counts: NDArray[np.int64]
    limits: NDArray[np.float64]
    limit_rows: NDArray[np.int64]
    slacks: NDArray[np.float64]


def queries_a_pass(k: int, n_candidates: int) -> int:
    """Give the number of queries whose shortlists fit `PASS_BYTES`."""
    return max(1, PASS_BYTES // (SLOT_BYTES * max(1, _capacity(k, n_candidates))))


def _capacity(k: int, n_candidates: int) -> int:
    return min(n_candidates, 2 * k + SPARE_SLOTS)  # with one slot a candidate none is ever dropped early


def open_shortlists(slacks: NDArray[np.float64], k: int, n_candidates: int) -> Shortlists:
    """Give empty shortlists for queries with these slacks, (q,)."""
    n_queries, capacity = slacks.size, _capacity(k, n_candidates)
    return Shortlists(
        np.empty((n_queries, capacity)),
        np.empty((n_queries, capacity), np.int32),
        np.empty((n_queries, capacity), np.bool_),
        np.zeros(n_queries, np.int64),
        np.full(n_queries, NO_LIMIT),
        np.full(n_queries, NO_ROW_LIMIT),
        slacks,
    )


@compiled
def tile_limit(lists: Shortlists, query: int, first_row: int) -> float:
    """Give the largest approximate squared distance at which rows from `first_row` on can enter."""
    limit: float = lists.limits[query]
    return limit if first_row < lists.limit_rows[query] else float(np.nextafter(limit, -np.inf))


@compiled
def admit(
    lists: Shortlists,
    query: int,
    k: int,
    pairs: Pairs,
    first_row: int,
    near: NDArray[np.uint16],
    squared: NDArray[np.float64],
    are_verified: bool,
) -> None:
    """Add those of a tile's `near` rows that can still be among the k nearest.

    Row `first_row + local`, for each local row in `near`, is at the approximate distance `squared[local]`.
    """
    # Locals, because every access to a tuple's array counts references: it cost more than the search.
    count, limit, limit_row = lists.counts[query], lists.limits[query], lists.limit_rows[query]
    open_squared, open_rows, is_verified = lists.squared[query], lists.rows[query], lists.is_verified[query]
    for local in near:
        row = first_row + np.int64(local)
        if squared[local] > limit or (squared[local] == limit and row >= limit_row):
            continue
        if count == open_rows.size:
            lists.counts[query] = count
            drop_hopeless(lists, query, k, pairs)
            count, limit, limit_row = lists.counts[query], lists.limits[query], lists.limit_rows[query]
        open_squared[count], open_rows[count], is_verified[count] = squared[local], row, are_verified
        count += 1
    lists.counts[query] = count


@compiled
def drop_hopeless(lists: Shortlists, query: int, k: int, pairs: Pairs) -> None:
    """Drop the candidates of a shortlist that cannot be among the k nearest, and lower its limit."""
    count, capacity = lists.counts[query], lists.squared.shape[1]
    if count <= k:
        return
    kth = kth_smallest(lists.squared[query, :count].copy(), k)
    lists.limits[query] = kth + lists.slacks[query]
    kept = 0
    for slot in range(count):
        if lists.squared[query, slot] <= lists.limits[query]:
            _move(lists, query, slot, kept)
            kept += 1
    lists.counts[query] = kept
    lists.limit_rows[query] = NO_ROW_LIMIT
    # A flood of nearly equal distances has to be verified. Without rounding errors it is, and with k of them
    # kept the later ones are refused at once.
    if kept > (capacity + k) // 2 or (kept > k and lists.slacks[query] == 0.0):
        _keep_nearest(lists, query, k, pairs)


@compiled
def _move(lists: Shortlists, query: int, slot: int, target: int) -> None:
    lists.squared[query, target] = lists.squared[query, slot]
    lists.rows[query, target] = lists.rows[query, slot]
    lists.is_verified[query, target] = lists.is_verified[query, slot]


@compiled
def _keep_nearest(lists: Shortlists, query: int, k: int, pairs: Pairs) -> None:
    worst_first, rows = np.empty(k), np.empty(k, np.int64)
    nearest_verified(lists, query, pairs, worst_first, rows)
    kept, kth = 0, 0.0
    for slot in range(lists.counts[query]):
        squared, row = lists.squared[query, slot], np.int64(lists.rows[query, slot])
        if not is_worse(-np.sqrt(squared), row, worst_first[0], rows[0]):
            kth = max(kth, squared)
            _move(lists, query, slot, kept)
            kept += 1
    lists.counts[query] = kept
    lists.limits[query] = kth + lists.slacks[query]
    if lists.slacks[query] == 0.0:
        lists.limit_rows[query] = rows[0]


@compiled
def nearest_verified(
    lists: Shortlists,
    query: int,
    pairs: Pairs,
    scores: NDArray[np.float64],
    rows: NDArray[np.int64],
) -> int:
    """Verify a shortlist and fill a heap (negative distances, rows) with its nearest; give the heap's size."""
    size, count = 0, lists.counts[query]
    squared, candidate_rows = lists.squared[query, :count], lists.rows[query, :count]
    measure(pairs, query, candidate_rows, lists.is_verified[query, :count], squared)
    for slot in range(count):
        # The order is that of the reported distances: square roots can be equal where squares are not.
        size = offer(scores, rows, size, -np.sqrt(squared[slot]), np.int64(candidate_rows[slot]))
    return size


@compiled
def rank_verified(
    lists: Shortlists, query: int, k: int, pairs: Pairs, rows: NDArray[np.int64], distances: NDArray[np.float64]
) -> int:
    """Verify a shortlist and write its k nearest, nearest first; give their number."""
    count = lists.counts[query]
    if count > MOST_RANKED:
        return _sort_verified(lists, query, k, pairs, rows, distances)
    candidate_rows = lists.rows[query, :count]
    squared = lists.squared[query, :count]
    measure(pairs, query, candidate_rows, lists.is_verified[query, :count], squared)
    roots = np.empty(count)
    for slot in range(count):
        roots[slot] = np.sqrt(squared[slot])
    # Counting who is nearer takes no branch that depends on a distance: for so few it is faster than a heap.
    for slot in range(count):
        root, row, rank = roots[slot], candidate_rows[slot], 0
        for other in range(count):
            rank += (roots[other] < root) | ((roots[other] == root) & (candidate_rows[other] < row))
        if rank < k:
            rows[rank], distances[rank] = row, root
    return int(min(count, k))


@compiled
def _sort_verified(
    lists: Shortlists, query: int, k: int, pairs: Pairs, rows: NDArray[np.int64], distances: NDArray[np.float64]
) -> int:
    scores, found = np.empty(k), np.empty(k, np.int64)
    size = nearest_verified(lists, query, pairs, scores, found)
    sort_heap(scores, found, size)
    for place in range(size):
        rows[place], distances[place] = found[place], -scores[place]
    return size
