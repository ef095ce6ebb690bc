"""The k items of largest dot product for each query, without the items it must not get.

Matrix products of tiles, each reduced to what can still be among the k largest while it is in the cache.
Nothing of the size of queries x items is ever held.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - compiled products call it: loaded here, limits on threads reach it
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.leaders import (
    Leaders,
    Vectors,
    admit,
    defined_score,
    guess_limits,
    guessed_rank,
    leaders_room,
    no_leaders,
    report_best,
)
from recsys_spark.kernels.simd import aligned, dot
from recsys_spark.kernels.topk import TopK, empty_top_k, require_k

TILE_QUERIES = 512
TILE_ITEMS = 1024

FLOAT32_MAX = float(np.finfo(np.float32).max)


class Queries(NamedTuple):
    """Query vectors (q, d), the slacks of their scores (q,), and where their excluded items start and end, (q,)."""

    vectors: NDArray[np.float32]
    slacks: NDArray[np.float64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def at(self, rows: slice | NDArray[np.intp]) -> "Queries":
        """Some of them."""
        return Queries(self.vectors[rows], self.slacks[rows], self.starts[rows], self.ends[rows])


class Catalogue(NamedTuple):
    """Item vectors (n, d), the item of the first, and the excluded items of all queries."""

    vectors: NDArray[np.float32]
    first_item: int
    excluded: NDArray[np.int32]


class Room(NamedTuple):
    """Work space of a tile of queries: their leaders, and their products with a tile of items."""

    leaders: Leaders
    products: NDArray[np.float32]


def score_top_k(
    query_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    excluded: IndexLists,
    k: int,
    first_item: int = 0,
    item_widths: NDArray[np.float32] | None = None,
) -> TopK:
    """Find the k items with the largest dot products with each query, ties by the smaller item.

    `query_vectors` (q, d) and `item_vectors` (n, d), which may be memory-mapped, are float32; vector j is of
    item `first_item + j`. `excluded` lists for each query, ascending, the items it never gets, wherever they
    lie. `item_widths` is `largest_magnitudes(item_vectors)`, for callers with many blocks of queries.
    Scores are float64 sums in the order of `simd.dot`, rounded to float32, whatever the block or shard; fewer
    than k items are padded with -1 and -inf.
    Raises ValueError for k < 1, shapes or dtypes that do not match, an exclusion list that is not ascending,
    a vector that is not finite, or a query whose scores could overflow float32.
    """
    require_k(k)
    _require_matching(query_vectors, item_vectors, excluded)
    indptr, indices = kernel_input(excluded.indptr, np.int64), kernel_input(excluded.indices, np.int32)
    _require_ascending(indptr, indices)
    items, vectors = kernel_input(item_vectors, np.float32), kernel_input(query_vectors, np.float32)
    widths = largest_magnitudes(items) if item_widths is None else item_widths
    queries = Queries(vectors, _slacks(vectors, items, widths, first_item), indptr[:-1], indptr[1:])
    catalogue = Catalogue(items, first_item, indices)
    best = empty_top_k(len(vectors), k, -np.inf, np.float32)
    kept = min(k, max(len(items), 1))
    n_rows = min(TILE_QUERIES, len(vectors))
    room = Room(leaders_room(n_rows, kept), aligned((n_rows * TILE_ITEMS,)))
    uncertain = _search(queries, catalogue, best, kept, room, is_guessing=True)
    if uncertain.size:
        again = empty_top_k(uncertain.size, kept, -np.inf, np.float32)
        _search(queries.at(uncertain), catalogue, again, kept, room, is_guessing=False)
        best.indices[uncertain, :kept], best.scores[uncertain, :kept] = again.indices, again.scores
    return best


def largest_magnitudes(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest magnitude in each dimension of vectors (n, d), (d,); NaN where a value is not finite."""
    return _largest_magnitudes(kernel_input(vectors, np.float32))


def score_pairs(query_vectors: NDArray[np.float32], item_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of pairs, (p,), by row of two (p, d) float32: to the last bit those of `score_top_k`."""
    vectors = Vectors(kernel_input(query_vectors, np.float32), kernel_input(item_vectors, np.float32))
    return _score_pairs(vectors)


@compiled
def _score_pairs(vectors: Vectors) -> NDArray[np.float32]:
    scores = np.empty(vectors.queries.shape[0], np.float32)
    for pair in range(scores.size):
        scores[pair] = defined_score(vectors, pair, pair)
    return scores


def _require_matching(
    query_vectors: NDArray[np.float32], item_vectors: NDArray[np.float32], excluded: IndexLists
) -> None:
    for role, vectors in (("query_vectors", query_vectors), ("item_vectors", item_vectors)):
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"{role} must be float32 (rows, d), got {vectors.dtype} {vectors.shape}")
    if query_vectors.shape[1] != item_vectors.shape[1]:
        raise ValueError(f"queries have {query_vectors.shape[1]} dimensions, items {item_vectors.shape[1]}")
    if excluded.n_rows != query_vectors.shape[0]:
        raise ValueError(f"{query_vectors.shape[0]} queries but {excluded.n_rows} lists of excluded items")


def _slacks(
    queries: NDArray[np.float32], items: NDArray[np.float32], widths: NDArray[np.float32], first_item: int
) -> NDArray[np.float64]:
    """Bound how far a float32 score can stray below the k-th and still be among the k best, (q,).

    In any order of addition a float32 product of d terms is off by at most d u m, u = 2^-24, with m the sum of
    their magnitudes (Higham 2002, section 3.1), and the defined score by u m; both for the k-th and for the
    candidate. 2^-149 a term covers products below the normal range. A single product is rounded but once.
    """
    _require_finite(widths, items, "item", first_item)
    magnitudes = _magnitudes(queries, kernel_input(widths, np.float32))
    _require_finite(magnitudes, queries, "query row", 0)
    if (magnitudes > FLOAT32_MAX).any():
        row = int(np.argmax(magnitudes > FLOAT32_MAX))
        raise ValueError(f"scores of query row {row} could reach {magnitudes[row]:g} and overflow float32")
    dims = queries.shape[1]
    if dims == 1:
        return np.zeros(magnitudes.size)
    slacks: NDArray[np.float64] = 2.0**-23 * (1.01 * dims + 4) * magnitudes + 2.0**-148 * (dims + 2)
    return slacks


@compiled
def _magnitudes(queries: NDArray[np.float32], widths: NDArray[np.float32]) -> NDArray[np.float64]:
    """The largest score a query could have with vectors of these widths, (q,)."""
    magnitudes, absolute = np.empty(queries.shape[0]), np.empty(queries.shape[1], np.float32)
    for query in range(queries.shape[0]):
        for dimension in range(absolute.size):
            absolute[dimension] = abs(queries[query, dimension])
        magnitudes[query] = dot(absolute, widths)
    return magnitudes


@compiled
def _largest_magnitudes(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    largest = np.zeros(vectors.shape[1], np.float32)
    nothing = np.zeros(vectors.shape[1], np.float32)
    for row in range(vectors.shape[0]):
        for dimension in range(largest.size):
            magnitude = abs(vectors[row, dimension])
            largest[dimension] = magnitude if magnitude > largest[dimension] else largest[dimension]
            nothing[dimension] += magnitude * np.float32(0.0)
    for dimension in range(largest.size):
        largest[dimension] += nothing[dimension]
    return largest


def _require_finite(bounds: NDArray[Any], vectors: NDArray[np.float32], role: str, first: int) -> None:
    if not np.isfinite(bounds).all():
        row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise ValueError(f"the vector of {role} {first + row} is not finite")


def _require_ascending(indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> None:
    row = _first_not_ascending(indptr, indices)
    if row >= 0:
        raise ValueError(f"the excluded items of query row {row} are not ascending")


@compiled
def _first_not_ascending(indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> int:
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] + 1, indptr[row + 1]):
            if indices[entry] < indices[entry - 1]:
                return row
    return -1


def _search(
    queries: Queries, catalogue: Catalogue, best: TopK, k: int, room: Room, is_guessing: bool
) -> NDArray[np.intp]:
    """Fill the queries' lists, (q, k or more) of padding; give the rows for which a guessed limit was too high."""
    n_items = len(catalogue.vectors)
    rank = guessed_rank(k, min(TILE_ITEMS, n_items), n_items) if is_guessing else 0
    is_certain = np.empty(len(queries.slacks), np.bool_)
    for start in range(0, len(queries.slacks), TILE_QUERIES):
        rows = slice(start, start + TILE_QUERIES)
        leaders, tile = no_leaders(room.leaders, queries.slacks[rows]), queries.at(rows)
        _lead(leaders, tile, catalogue, k, rank, room.products[: len(tile.slacks) * TILE_ITEMS])
        vectors = Vectors(tile.vectors, catalogue.vectors)
        found = best.scores[rows, :k], best.indices[rows, :k]
        report_best(leaders, vectors, catalogue.first_item, k, *found, is_certain[rows])
    return np.flatnonzero(~is_certain)


@compiled
def _lead(
    leaders: Leaders, queries: Queries, catalogue: Catalogue, k: int, rank: int, buffer: NDArray[np.float32]
) -> None:
    items, cursors, vectors = catalogue.vectors, queries.starts.copy(), Vectors(queries.vectors, catalogue.vectors)
    tile_items = buffer.size // cursors.size
    for start in range(0, items.shape[0], tile_items):
        tile = items[start : start + tile_items]
        products = buffer[: cursors.size * tile.shape[0]].reshape(cursors.size, tile.shape[0])
        np.dot(queries.vectors, tile.T, products)
        _mask(products, catalogue.first_item + start, catalogue.excluded, cursors, queries.ends)
        if start == 0 and rank > 0:
            guess_limits(leaders, products, rank)
        admit(leaders, products, start, k, vectors)


@compiled
def _mask(
    scores: NDArray[np.float32],
    first_item: int,
    excluded: NDArray[np.int32],
    cursors: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> None:
    """Set the scores of excluded items to -inf; `cursors` say how far each query's list has been walked."""
    end_item = first_item + scores.shape[1]
    for query in range(scores.shape[0]):
        cursor, end = cursors[query], ends[query]
        while cursor < end and excluded[cursor] < end_item:
            if excluded[cursor] >= first_item:
                scores[query, excluded[cursor] - first_item] = -np.inf
            cursor += 1
        cursors[query] = cursor
