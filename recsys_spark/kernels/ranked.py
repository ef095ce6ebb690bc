"""Lists that are ranked beforehand, put before what else a query would get."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.exclusions import allowed_rows
from recsys_spark.kernels.jit import Whole, compiled, kernel_input
from recsys_spark.kernels.topk import TopK, empty_top_k


def put_first(
    ranked: IndexLists, scores: NDArray[np.float32], chosen: NDArray[np.int32], excluded: IndexLists, rest: TopK
) -> TopK:
    """The first items of each query's ranked list that it does not exclude, and after them the others of `rest`.

    `ranked` lists items best first, each once, with `scores` beside them; query q has list `chosen[q]`, or none for -1
    and gets `rest` as it is. `excluded` are its items ascending, or as `Exclusions` those that it gets. `rest` (q, k)
    holds the k best of what it could get beside; its scores must be below those of the list. Work of a query: k, and as
    many items as it excludes.
    Raises ValueError for shapes that do not match, or a list that there is not.
    """
    _require_valid(ranked, scores, chosen, excluded, rest)
    n_queries, k = rest.indices.shape
    best = empty_top_k(n_queries, k, -np.inf, np.float32)
    _put_first(
        kernel_input(ranked.indptr, np.int64),
        kernel_input(ranked.indices, np.int32),
        kernel_input(scores, np.float32),
        kernel_input(chosen, np.int32),
        kernel_input(excluded.indptr, np.int64),
        kernel_input(excluded.indices, np.int32),
        allowed_rows(excluded),
        kernel_input(rest.indices, np.int64),
        kernel_input(rest.scores, np.float32),
        best.indices,
        best.scores,
    )
    return best


def _require_valid(
    ranked: IndexLists, scores: NDArray[np.float32], chosen: NDArray[np.int32], excluded: IndexLists, rest: TopK
) -> None:
    n_queries = len(rest.indices)
    if chosen.shape != (n_queries,) or excluded.n_rows != n_queries:
        raise ValueError(f"{n_queries} queries, but {len(chosen)} chosen lists and {excluded.n_rows} of excluded items")
    if scores.shape != ranked.indices.shape:
        raise ValueError(f"{ranked.indices.size} ranked items, but scores {scores.shape}")
    if chosen.size and not -1 <= chosen.min() <= chosen.max() < ranked.n_rows:
        raise ValueError(f"lists {chosen.min()} to {chosen.max()} are chosen of {ranked.n_rows}")


@compiled
def _put_first(
    starts: NDArray[np.int64],
    items: NDArray[np.int32],
    scores: NDArray[np.float32],
    chosen: NDArray[np.int32],
    excluded_starts: NDArray[np.int64],
    excluded: NDArray[np.int32],
    are_allowed: NDArray[np.bool_],
    rest_items: NDArray[np.int64],
    rest_scores: NDArray[np.float32],
    best_items: NDArray[np.int64],
    best_scores: NDArray[np.float32],
) -> None:
    for query in range(len(chosen)):
        ranked = chosen[query]
        own = slice(starts[ranked], starts[ranked + 1]) if ranked >= 0 else slice(0, 0)
        known = excluded[excluded_starts[query] : excluded_starts[query + 1]]
        is_allowed = are_allowed[query]
        found = _take(items[own], scores[own], known, is_allowed, best_items[query], best_scores[query], 0)
        taken = np.sort(best_items[query, :found])
        _take(rest_items[query], rest_scores[query], taken, False, best_items[query], best_scores[query], found)


@compiled
def _take(
    items: NDArray[Any],
    scores: NDArray[np.float32],
    listed: NDArray[Any],
    is_allowed: bool,
    best_items: NDArray[np.int64],
    best_scores: NDArray[np.float32],
    found: int,
) -> int:
    """Append items that are not padding, and among the listed, ascending, or not, until it is full; its new size."""
    for place in range(items.size):
        if found == best_items.size:
            break
        if items[place] >= 0 and _holds(listed, items[place]) == is_allowed:
            best_items[found], best_scores[found] = items[place], scores[place]
            found += 1
    return found


@compiled
def _holds(ascending: NDArray[Any], item: Whole) -> bool:
    place = np.searchsorted(ascending, item)
    return bool(place < ascending.size and ascending[place] == item)
