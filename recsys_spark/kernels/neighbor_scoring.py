"""The k items that score best by what a query's neighbors have, weighted by how similar they are."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from recsys_spark.kernels.boosts import boosted
from recsys_spark.kernels.csr import CsrRows, IndexLists, require_valid_columns
from recsys_spark.kernels.exclusions import allowed_rows
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import MASK_BITS, above, aligned, lowest_bit
from recsys_spark.kernels.topk import TopK, empty_top_k, kth_largest, offer, require_k, sort_heap

NeighborMode = Literal["mean", "sum"]

FLOAT32_MAX = np.finfo(np.float32).max


class Ragged(NamedTuple):
    """`IndexLists` with one value an entry, as kernels take them."""

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[np.float32]


class Votes(NamedTuple):
    """Work space of the items of a shard: sums of votes and of weights, and the items that got any.

    `seen_by` and `excluded_by` hold the last query for which an item got a vote or was excluded; `scores` are those of
    `items`, padded to whole 64s. `factors` of scores are (n,), or (0,) for none; items whose factor is 0 have none.
    """

    sums: NDArray[np.float64]
    weights: NDArray[np.float64]
    seen_by: NDArray[np.int32]
    excluded_by: NDArray[np.int32]
    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    factors: NDArray[np.float32]


def score_from_neighbors(
    neighbor_rows: CsrRows,
    neighbors: IndexLists,
    similarities: NDArray[np.float32],
    excluded: IndexLists,
    k: int,
    mode: NeighborMode,
    shrinkage: float = 0.0,
    first_item: int = 0,
    factors: NDArray[np.float32] | None = None,
) -> TopK:
    """Find the k best items among those that at least one neighbor has, ties by the smaller item.

    The score of item i is sum_v s_v r_vi over the query's neighbors v that have i, as "sum"; as "mean" it is divided by
    sum_v s_v over the same neighbors + `shrinkage` (a user-based k-nearest-neighbors predictor: Herlocker et al., SIGIR
    1999, without their centering). A mean whose divisor is 0 is 0. `neighbors` lists for each query positions in
    `neighbor_rows`, -1 being padding; `similarities` has one value a listed neighbor. `excluded` lists the items a
    query never gets, in any order; `Exclusions` may list those that it gets instead. Column j of `neighbor_rows` is
    item `first_item + j`. `factors`, (columns,) float32, multiply the scores of items, or divide those below 0; what
    has a factor of 0 is never listed. Sums are float64 in the order of the neighbors, scores are rounded to float32
    before they are compared, and fewer than k items are padded with -1 and -inf.
    Raises ValueError for k < 1, an unknown mode, shapes that do not match, a neighbor that is no row, a row
    with columns that are not ascending within range, a negative shrinkage, a similarity that is not finite
    (or, for "mean", negative), a factor that is negative or not finite, or a score that is not a finite float32.
    """
    require_k(k)
    require_valid_columns(neighbor_rows, "neighbor")
    _require_valid(neighbor_rows, neighbors, similarities, excluded, mode, shrinkage)
    best = empty_top_k(neighbors.n_rows, k, -np.inf, np.float32)
    failed_query = _score(
        _ragged(neighbor_rows, neighbor_rows.values, np.int32),
        _ragged(neighbors, similarities, np.int64),
        kernel_input(excluded.indptr, np.int64),
        kernel_input(excluded.indices, np.int64),
        allowed_rows(excluded),
        _no_votes(neighbor_rows.n_columns, _valid_factors(factors, neighbor_rows.n_columns)),
        mode == "mean",
        float(shrinkage),
        first_item,
        best.scores,
        best.indices,
    )
    if failed_query >= 0:
        raise ValueError(f"query row {failed_query} has a score that is not a finite float32")
    return best


def sum_votes(neighbor_rows: CsrRows, neighbors: IndexLists, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores of all items by "sum" as `score_from_neighbors` defines them, (q, items); 0 without a neighbor's vote.

    Raises ValueError as it does.
    """
    require_valid_columns(neighbor_rows, "neighbor")
    nothing = IndexLists(np.zeros(neighbors.n_rows + 1, np.int64), np.zeros(0, np.int32))
    _require_valid(neighbor_rows, neighbors, similarities, nothing, "sum", 0.0)
    scores = np.zeros((neighbors.n_rows, neighbor_rows.n_columns), np.float32)
    _sum_votes(
        _ragged(neighbor_rows, neighbor_rows.values, np.int32),
        _ragged(neighbors, similarities, np.int64),
        _no_votes(neighbor_rows.n_columns, _valid_factors(None, neighbor_rows.n_columns)),
        scores,
    )
    if not np.isfinite(scores).all():
        query = int(np.argmin(np.isfinite(scores).all(axis=1)))
        raise ValueError(f"query row {query} has a score that is not a finite float32")
    return scores


def _ragged(lists: IndexLists, values: NDArray[np.float32], dtype: DTypeLike) -> Ragged:
    return Ragged(
        kernel_input(lists.indptr, np.int64), kernel_input(lists.indices, dtype), kernel_input(values, np.float32)
    )


@compiled
def _sum_votes(neighbor_rows: Ragged, neighbors: Ragged, votes: Votes, scores: NDArray[np.float32]) -> None:
    for query in range(scores.shape[0]):
        n_items = _collect_votes(neighbor_rows, neighbors, query, votes, False)
        for place in range(n_items):
            item = votes.items[place]
            scores[query, item] = np.float32(votes.sums[item])


def _require_valid(
    neighbor_rows: CsrRows,
    neighbors: IndexLists,
    similarities: NDArray[np.float32],
    excluded: IndexLists,
    mode: str,
    shrinkage: float,
) -> None:
    if mode not in get_args(NeighborMode):
        raise ValueError(f"mode must be one of {get_args(NeighborMode)}, got {mode!r}")
    if not 0 <= shrinkage < np.inf:
        raise ValueError(f"shrinkage must be at least 0 and finite, got {shrinkage}")
    if excluded.n_rows != neighbors.n_rows:
        raise ValueError(f"{neighbors.n_rows} queries but {excluded.n_rows} lists of excluded items")
    if similarities.shape != neighbors.indices.shape:
        raise ValueError(f"{neighbors.indices.size} neighbors but similarities {similarities.shape}")
    is_padding = neighbors.indices < 0
    is_bad = ~np.isfinite(similarities) | ((similarities < 0) & (mode == "mean"))
    for is_wrong, complaint in (
        (neighbors.indices >= neighbor_rows.n_rows, f"a neighbor beyond {neighbor_rows.n_rows} rows"),
        (is_bad & ~is_padding, f"a similarity that is not finite or is negative in mode {mode!r}"),
    ):
        if is_wrong.any():
            entry = int(np.argmax(is_wrong))
            query = int(np.searchsorted(neighbors.indptr, entry, side="right")) - 1
            raise ValueError(f"query row {query} has {complaint}")


def _valid_factors(factors: NDArray[np.float32] | None, n_items: int) -> NDArray[np.float32]:
    if factors is None:
        return kernel_input(np.empty(0, np.float32), np.float32)
    if factors.shape != (n_items,) or not (np.isfinite(factors) & (factors >= 0)).all():
        raise ValueError(f"factors must be finite and at least 0, of shape ({n_items},), got {factors.shape}")
    return kernel_input(factors, np.float32)


def _no_votes(n_items: int, factors: NDArray[np.float32]) -> Votes:
    return Votes(
        np.empty(n_items),
        np.empty(n_items),
        np.full(n_items, -1, np.int32),
        np.full(n_items, -1, np.int32),
        np.empty(n_items, np.int32),
        aligned((-(-n_items // MASK_BITS) * MASK_BITS,)),
        factors,
    )


@compiled
def _score(
    neighbor_rows: Ragged,
    neighbors: Ragged,
    excluded_indptr: NDArray[np.int64],
    excluded: NDArray[np.int64],
    are_allowed: NDArray[np.bool_],
    votes: Votes,
    is_mean: bool,
    shrinkage: float,
    first_item: int,
    best_scores: NDArray[np.float32],
    best_items: NDArray[np.int64],
) -> int:
    excluded_by = votes.excluded_by
    for query in range(best_items.shape[0]):
        if are_allowed[query] and excluded_indptr[query] == excluded_indptr[query + 1]:
            continue
        for entry in range(excluded_indptr[query], excluded_indptr[query + 1]):
            if 0 <= excluded[entry] - first_item < excluded_by.size:
                excluded_by[excluded[entry] - first_item] = query
        n_items = _collect_votes(neighbor_rows, neighbors, query, votes, is_mean)
        divisor = shrinkage if is_mean else -1.0
        best = best_scores[query], best_items[query]
        size = _rank_votes(votes, query, are_allowed[query], n_items, divisor, first_item, *best)
        if size < 0:
            return query
        sort_heap(best_scores[query], best_items[query], size)
    return -1


@compiled
def _collect_votes(neighbor_rows: Ragged, neighbors: Ragged, query: int, votes: Votes, has_weights: bool) -> int:
    indptr, indices, values = neighbor_rows.indptr, neighbor_rows.indices, neighbor_rows.values
    sums, weights, seen_by, items = votes.sums, votes.weights, votes.seen_by, votes.items
    n_items = 0
    for place in range(neighbors.indptr[query], neighbors.indptr[query + 1]):
        row = neighbors.indices[place]
        if row < 0:
            continue
        similarity = np.float64(neighbors.values[place])
        for entry in range(indptr[row], indptr[row + 1]):
            item = indices[entry]
            if seen_by[item] != query:
                seen_by[item] = query
                sums[item], weights[item] = 0.0, 0.0
                items[n_items] = item
                n_items += 1
            sums[item] += similarity * np.float64(values[entry])
            if has_weights:
                weights[item] += similarity
    return n_items


@compiled
def _rank_votes(
    votes: Votes,
    query: int,
    is_allowed: bool,
    n_items: int,
    shrinkage: float,
    first_item: int,
    best_scores: NDArray[np.float32],
    best_items: NDArray[np.int64],
) -> int:
    """Fill the heap with the query's items; give its size, or -1 when a score is no finite float32.

    A negative shrinkage stands for "sum".
    """
    n_scored = _score_items(votes, query, is_allowed, n_items, shrinkage)
    if n_scored < 0:
        return -1
    scores, padded, size = votes.scores, -(-n_items // MASK_BITS) * MASK_BITS, 0
    scores[n_items:padded] = -np.inf
    limit = np.float32(-np.inf)
    if n_scored > best_scores.size:  # so that the heap meets few that it will not keep
        limit = np.nextafter(kth_largest(scores[:padded], best_scores.size), limit)
    for start in range(0, padded, MASK_BITS):
        bits = above(scores, start, limit)
        while bits != 0:
            place = start + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            size = offer(best_scores, best_items, size, scores[place], np.int64(first_item + votes.items[place]))
    return size


@compiled
def _score_items(votes: Votes, query: int, is_allowed: bool, n_items: int, shrinkage: float) -> int:
    """Fill the scores, -inf for excluded items; give the number of the others, or -1 as above.

    What is marked by the query is excluded, or `is_allowed` and all else is excluded.
    """
    sums, weights, excluded_by, items, scores = votes.sums, votes.weights, votes.excluded_by, votes.items, votes.scores
    factors, has_factors = votes.factors, votes.factors.size > 0
    n_scored = 0
    for place in range(n_items):
        item = items[place]
        if (excluded_by[item] == query) != is_allowed or (has_factors and factors[item] == 0.0):
            scores[place] = -np.inf
            continue
        score = sums[item]
        if shrinkage >= 0.0:
            weight = weights[item] + shrinkage
            score = score / weight if weight > 0.0 else 0.0
        if has_factors:
            score = boosted(score, factors[item])
        if not abs(score) <= FLOAT32_MAX:
            return -1
        scores[place] = score
        n_scored += 1
    return n_scored
