"""Leaders: the items that may still be among a query's k best, kept until their scores are computed as defined.

Matrix products in float32 add in an order that differs with the place of a row in its tile, so their last
bits depend on blocks and shards. They serve to drop what is behind k others by more than the rounding error;
the few items left are scored by `defined_score`, which depends on the two vectors alone.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.boosts import boosted
from recsys_spark.kernels.jit import Real, compiled
from recsys_spark.kernels.simd import MASK_BITS, above, dot, keep_larger, lowest_bit, prefetch
from recsys_spark.kernels.topk import is_worse, kth_largest, offer, ordered_bits, sort_heap

SPARE_SLOTS = 2 * MASK_BITS  # so that there is room for a chunk once the hopeless are dropped
GUESS_TOLERANCE = 1 << 16  # less than a hundredth
KTH_TOLERANCE = 1 << 12  # a few more are scored as defined, found in fewer steps
SHARE_AGAIN = 1e-3  # of the queries, for which a guess may fail: they are searched a second time
AHEAD = 8  # item vectors asked for before they are read
MOST_RANKED = 1024
LAST_ITEM = 0xFFFFFFFF


class Vectors(NamedTuple):
    """Query vectors (q, d) and item vectors (n, d), float32, and which items those are, (n,).

    `additions` to the products are (q, n) float32, or (0, 0) for none; `factors` of the scores (n,), or (0,).
    """

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    item_idx: NDArray[np.int32]
    additions: NDArray[np.float32]
    factors: NDArray[np.float32]


class Leaders(NamedTuple):
    """Rows of items that may be among a query's k best, in the order they came, and approximate scores, (q, capacity).

    `counts`, (q,), of them are filled; only approximate scores above `limits`, (q,), can enter; `slacks`,
    (q,), is how far one can be below the k-th and still be among the k best, 0 where scores are as defined.
    `guesses`, (q,), are limits that nothing proved yet: -inf where there is none.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int32]
    counts: NDArray[np.int64]
    limits: NDArray[np.float32]
    slacks: NDArray[np.float64]
    guesses: NDArray[np.float32]


def leaders_room(n_queries: int, k: int) -> Leaders:
    """Give room for that many queries."""
    shape = n_queries, -(-(2 * k + SPARE_SLOTS) // MASK_BITS) * MASK_BITS
    return Leaders(
        np.empty(shape, np.float32),
        np.empty(shape, np.int32),
        np.empty(n_queries, np.int64),
        np.empty(n_queries, np.float32),
        np.empty(n_queries),
        np.empty(n_queries, np.float32),
    )


def no_leaders(room: Leaders, slacks: NDArray[np.float64], floors: NDArray[np.float32]) -> Leaders:
    """Give empty lists in that room for queries with these slacks, (q,), who want no score below these floors, (q,)."""
    leaders = Leaders._make(array[: slacks.size] for array in room)
    leaders.counts[:], leaders.slacks[:], leaders.guesses[:] = 0, slacks, -np.inf
    leaders.limits[:] = np.nextafter((floors - slacks).astype(np.float32), np.float32(-np.inf))
    return leaders


def guessed_rank(k: int, n_seen: int, n_items: int) -> int:
    """The rank among the first `n_seen` of `n_items` scores that k of all reach, in any but rare cases; 0 for none.

    It fails when as many of the k best are among the first: about a Poisson number with mean k n_seen / n_items.
    """
    if n_seen < MASK_BITS or (expected := k * n_seen / n_items) > MASK_BITS // 2:
        return 0
    rank, share = 0, math.exp(-expected)
    beyond = 1.0 - share
    while beyond > SHARE_AGAIN:
        rank += 1
        share *= expected / rank
        beyond -= share
    return rank + 1 if rank < MASK_BITS // 2 else 0


@compiled
def guess_limits(leaders: Leaders, scores: NDArray[np.float32], queries: NDArray[np.intp], rank: int) -> None:
    """Set limits that at least `rank` of the first scores, (q, n), of some queries, (q,), reach.

    That is the rank-th of the maxima of groups.
    """
    size, scores_of_all, largest = scores.shape[1], scores.ravel(), np.empty(MASK_BITS, np.float32)
    for line in range(queries.size):
        query = queries[line]
        largest[:] = -np.inf
        for start in range(line * size, (line + 1) * size - MASK_BITS + 1, MASK_BITS):
            keep_larger(largest, 0, scores_of_all, start)
        guess = np.nextafter(kth_largest(largest, rank, GUESS_TOLERANCE), np.float32(-np.inf))
        leaders.limits[query], leaders.guesses[query] = guess, guess


@compiled
def admit(
    leaders: Leaders,
    scores: NDArray[np.float32],
    queries: NDArray[np.intp],
    first_row: int,
    k: int,
    vectors: Vectors,
) -> None:
    """Append the scores, (q, n), of some queries, (q,), above their limits; column j is of row `first_row + j`."""
    size, capacity = scores.shape[1], leaders.scores.shape[1]
    # Flat arrays, because every slice of one counts references.
    scores_of_all, leading_scores, leading_rows = scores.ravel(), leaders.scores.ravel(), leaders.rows.ravel()
    counts, limits = leaders.counts, leaders.limits
    for line in range(queries.size):
        query, end = queries[line], (line + 1) * size
        count, limit, first_slot = counts[query], limits[query], query * capacity
        for start in range(line * size, end, MASK_BITS):
            bits = _above(scores_of_all, start, end, limit)
            if bits == 0:
                continue
            if count + MASK_BITS > capacity:
                counts[query] = count
                drop_hopeless(leaders, query, k, vectors)
                count, limit = counts[query], limits[query]
                bits = _above(scores_of_all, start, end, limit)
            while bits != 0:
                place = start + lowest_bit(bits)
                leading_scores[first_slot + count] = scores_of_all[place]
                leading_rows[first_slot + count] = first_row + place - line * size
                count += 1
                bits &= bits - np.uint64(1)
        counts[query] = count


@compiled
def _above(scores: NDArray[np.float32], start: int, stop: int, limit: np.float32) -> np.uint64:
    if start + MASK_BITS <= stop:
        return np.uint64(above(scores, start, limit))
    bits = np.uint64(0)
    for place in range(stop - start):
        bits |= np.uint64(scores[start + place] > limit) << np.uint64(place)
    return bits


@compiled
def defined_score(
    query: NDArray[np.float32], item: NDArray[np.float32], addition: Real = 0.0, factor: Real = 1.0
) -> np.float32:
    """Score of an item: the dot product in the float64 order of `simd.dot`, and an addition, boosted, as float32."""
    return np.float32(boosted(dot(query, item) + addition, factor)) + np.float32(0.0)  # one zero, not two


@compiled
def drop_hopeless(leaders: Leaders, query: int, k: int, vectors: Vectors) -> bool:
    """Drop the items of a query that cannot be among its k best and raise its limit; whether none can be missing."""
    count, guess = leaders.counts[query], leaders.guesses[query]
    if count < k:
        return bool(guess == -np.inf)
    scores, rows = leaders.scores[query], leaders.rows[query]
    padded = -(-count // MASK_BITS) * MASK_BITS
    scores[count:padded] = -np.inf
    kth = kth_largest(scores[:padded], k, KTH_TOLERANCE if leaders.slacks[query] > 0.0 else 0)
    floor = np.float64(kth) - leaders.slacks[query]
    kept = 0
    for slot in range(count):
        scores[kept], rows[kept] = scores[slot], rows[slot]
        kept += scores[slot] >= floor
    leaders.counts[query] = kept
    if kept > k + MASK_BITS // 2:  # a flood of nearly equal scores
        kth = np.float32(_keep_best(leaders, query, k, vectors))
    leaders.limits[query] = max(leaders.limits[query], _limit_below(kth, leaders.slacks[query]))
    return bool(floor > guess)


@compiled
def _limit_below(kth: Real, slack: Real) -> np.float32:
    if slack == 0.0:
        return np.float32(kth)
    return np.float32(np.nextafter(np.float32(kth - slack), np.float32(-np.inf)))


@compiled
def _keep_best(leaders: Leaders, query: int, k: int, vectors: Vectors) -> float:
    best_scores, best_items = np.empty(k, np.float32), np.empty(k, np.int64)
    _score_as_defined(leaders, query, vectors)
    _heap_of_best(leaders, query, vectors, best_scores, best_items)
    kept = 0
    for slot in range(leaders.counts[query]):
        score, row = leaders.scores[query, slot], leaders.rows[query, slot]
        if not is_worse(score, vectors.item_idx[row], best_scores[0], best_items[0]):
            leaders.scores[query, kept], leaders.rows[query, kept] = score, row
            kept += 1
    leaders.counts[query] = kept
    kth: float = best_scores[0]
    return kth


@compiled
def _score_as_defined(leaders: Leaders, query: int, vectors: Vectors) -> None:
    scores, rows, count = leaders.scores[query], leaders.rows[query], leaders.counts[query]
    for slot in range(min(count, AHEAD)):
        prefetch(vectors.items[rows[slot]])
    for slot in range(count):
        if slot + AHEAD < count:
            prefetch(vectors.items[rows[slot + AHEAD]])
        addition = np.float64(vectors.additions[query, rows[slot]]) if vectors.additions.size else 0.0
        factor = np.float64(vectors.factors[rows[slot]]) if vectors.factors.size else 1.0
        scores[slot] = defined_score(vectors.queries[query], vectors.items[rows[slot]], addition, factor)


@compiled
def _heap_of_best(
    leaders: Leaders, query: int, vectors: Vectors, scores: NDArray[np.float32], items: NDArray[np.int64]
) -> int:
    size = 0
    for slot in range(leaders.counts[query]):
        item = vectors.item_idx[leaders.rows[query, slot]]
        size = offer(scores, items, size, leaders.scores[query, slot], item)
    return size


@compiled
def report_best(
    leaders: Leaders,
    vectors: Vectors,
    k: int,
    scores: NDArray[np.float32],
    items: NDArray[np.int64],
    is_certain: NDArray[np.bool_],
) -> None:
    """Fill the queries' lists, (q, k) of padding, with their best items, best first, where none can be missing."""
    for query in range(leaders.counts.size):
        is_certain[query] = drop_hopeless(leaders, query, k, vectors)
        if not is_certain[query]:
            continue
        _score_as_defined(leaders, query, vectors)
        if leaders.counts[query] <= MOST_RANKED:
            _rank(leaders, query, vectors, scores[query], items[query])
        else:
            size = _heap_of_best(leaders, query, vectors, scores[query], items[query])
            sort_heap(scores[query], items[query], size)


@compiled
def _rank(
    leaders: Leaders, query: int, vectors: Vectors, scores: NDArray[np.float32], items: NDArray[np.int64]
) -> None:
    """Write the best to the places of their ranks, without a branch that depends on a score.

    Scores and items are packed into whole numbers of the same order, the item turned around.
    """
    count = leaders.counts[query]
    bits, keys = leaders.scores[query, :count].view(np.int32), np.empty(count, np.int64)
    for slot in range(count):
        item = vectors.item_idx[leaders.rows[query, slot]]
        keys[slot] = (np.int64(ordered_bits(bits[slot])) << 32) | (LAST_ITEM - item)
    for slot in range(count):
        key, rank = keys[slot], 0
        for other in range(count):
            rank += keys[other] > key
        if rank < scores.size:
            scores[rank], items[rank] = leaders.scores[query, slot], LAST_ITEM - (key & LAST_ITEM)
