"""The k items of largest dot product for each query, without the items it must not get.

Matrix products of tiles, each reduced to what can still be among the k largest while it is in the cache.
Nothing of the size of queries x items is ever held.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - compiled products call it: loaded here, limits on threads reach it
from numpy.typing import NDArray

from recsys_spark.kernels.boosts import Factors, boosted, factors_of
from recsys_spark.kernels.bounds import ItemBounds, bounds_of_any_order, score_bound, vector_norms
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.exclusions import allowed_rows
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
    """Query vectors (q, d); their norms, the slacks and floors of their scores, where their exclusions lie, (q,).

    `additions` to their products are (q, n), or (q, 0) for none. Where `are_allowed`, (q,), what lies there is not
    excluded, and all else is.
    """

    vectors: NDArray[np.float32]
    additions: NDArray[np.float32]
    norms: NDArray[np.float64]
    slacks: NDArray[np.float64]
    floors: NDArray[np.float32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    are_allowed: NDArray[np.bool_]

    def at(self, rows: slice | NDArray[np.intp]) -> "Queries":
        """Some of them."""
        return Queries._make(array[rows] for array in self)


class Catalogue(NamedTuple):
    """Item vectors (n, d), their bounds, items (n,) and factors, the first's place, the places that queries exclude."""

    vectors: NDArray[np.float32]
    bounds: ItemBounds
    items: NDArray[np.int32]
    first_place: int
    excluded: NDArray[np.int32]
    factors: Factors


class Room(NamedTuple):
    """Work space of a tile of queries: leaders, vectors of those that still search, products with a tile of items."""

    leaders: Leaders
    searching: NDArray[np.float32]
    products: NDArray[np.float32]


def score_top_k(
    query_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    excluded: IndexLists,
    k: int,
    first_place: int = 0,
    item_idx: NDArray[np.int32] | None = None,
    bounds: ItemBounds | None = None,
    floors: NDArray[np.float32] | None = None,
    additions: NDArray[np.float32] | None = None,
    factors: NDArray[np.float32] | None = None,
) -> TopK:
    """Find the k items with the largest dot products with each query, ties by the smaller item.

    `query_vectors` (q, d) and `item_vectors` (n, d), which may be memory-mapped, are float32. Vector j is of item
    `item_idx[j]`, which is its place, `first_place + j`, when left out. `excluded` lists for each query, ascending, the
    places it never gets, wherever they lie; `Exclusions` may list those that it gets instead. `bounds` are those of the
    item vectors, for callers with many blocks of queries, and those that can end the search early. Nothing below
    `floors`, (q,), is wanted: lists may end there. `additions`, (q, n) float32, are added to the products; bounds know
    nothing of them and go unused. `factors`, (n,) float32 above 0, multiply the scores of items, or divide those below
    0: `boosts.boosted`. Scores are float64 sums in the order of `simd.dot`, rounded to float32, whatever the block or
    shard; fewer than k items are padded with -1 and -inf.
    Raises ValueError for k < 1, shapes or dtypes that do not match, an exclusion list that is not ascending,
    a vector that is not finite, or a query whose scores could overflow float32.
    """
    require_k(k)
    _require_matching(query_vectors, item_vectors, excluded)
    indptr, indices = kernel_input(excluded.indptr, np.int64), kernel_input(excluded.indices, np.int32)
    _require_ascending(indptr, indices)
    vectors = kernel_input(query_vectors, np.float32)
    added = _added(additions, len(vectors), len(item_vectors))
    by = factors_of(factors, len(item_vectors))
    catalogue = _catalogue(item_vectors, bounds if additions is None else None, item_idx, first_place, indices, by)
    slacks = _slacks(vectors, catalogue, added, is_in_order=item_idx is None)
    norms = vector_norms(vectors, catalogue.bounds.lowest.shape[1])
    wanted = np.full(len(vectors), -np.inf, np.float32) if floors is None else floors
    queries = Queries(vectors, added, norms, slacks, wanted, indptr[:-1], indptr[1:], allowed_rows(excluded))
    best = empty_top_k(len(vectors), k, -np.inf, np.float32)
    kept = min(k, max(len(item_vectors), 1))
    n_rows = min(TILE_QUERIES, len(vectors))
    room = Room(leaders_room(n_rows, kept), aligned((n_rows, vectors.shape[1])), aligned((n_rows * TILE_ITEMS,)))
    uncertain = _search(queries, catalogue, best, kept, room, is_guessing=floors is None)
    if uncertain.size:
        again = empty_top_k(uncertain.size, kept, -np.inf, np.float32)
        _search(queries.at(uncertain), catalogue, again, kept, room, is_guessing=False)
        best.indices[uncertain, :kept], best.scores[uncertain, :kept] = again.indices, again.scores
    return best


def score_pairs(query_vectors: NDArray[np.float32], item_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of pairs, (p,), by row of two (p, d) float32: to the last bit those of `score_top_k`."""
    return _score_pairs(kernel_input(query_vectors, np.float32), kernel_input(item_vectors, np.float32))


@compiled
def _score_pairs(queries: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
    scores = np.empty(queries.shape[0], np.float32)
    for pair in range(scores.size):
        scores[pair] = defined_score(queries[pair], items[pair])
    return scores


def _catalogue(
    item_vectors: NDArray[np.float32],
    bounds: ItemBounds | None,
    item_idx: NDArray[np.int32] | None,
    first_place: int,
    excluded: NDArray[np.int32],
    factors: Factors,
) -> Catalogue:
    vectors = kernel_input(item_vectors, np.float32)
    items = np.arange(first_place, first_place + len(vectors), dtype=np.int32) if item_idx is None else item_idx
    if items.shape != (len(vectors),):
        raise ValueError(f"{len(vectors)} item vectors but item_idx has shape {items.shape}")
    known = bounds_of_any_order(vectors) if bounds is None else bounds
    read_only = ItemBounds(*(kernel_input(array, array.dtype) for array in known))
    return Catalogue(vectors, read_only, kernel_input(items, np.int32), first_place, excluded, factors)


def _added(additions: NDArray[np.float32] | None, n_queries: int, n_items: int) -> NDArray[np.float32]:
    if additions is None:
        return np.empty((n_queries, 0), np.float32)
    if additions.shape != (n_queries, n_items) or additions.dtype != np.float32:
        raise ValueError(f"additions must be float32 ({n_queries}, {n_items}), got {additions.dtype} {additions.shape}")
    return kernel_input(additions, np.float32)


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
    queries: NDArray[np.float32], catalogue: Catalogue, additions: NDArray[np.float32], is_in_order: bool
) -> NDArray[np.float64]:
    """Bound how far a float32 score can stray below the k-th and still be among the k best, (q,).

    In any order of addition a float32 product of d terms is off by at most d u m, u = 2^-24, with m the sum of
    their magnitudes (Higham 2002, section 3.1), and the defined score by u m; both for the k-th and for the
    candidate. An addition counts as one more term, a factor, which multiplies all that, as two. 2^-149 a term covers
    products below the normal range. A single product is rounded but once: where items ascend, one that equals the k-th
    comes too late.
    """
    _require_finite(catalogue.bounds.widths, catalogue.vectors, "the vector of item", catalogue.items)
    magnitudes = _magnitudes(queries, catalogue.bounds.widths)
    _require_finite(magnitudes, queries, "the vector of query row", np.arange(len(queries)))
    if additions.size:
        largest = np.maximum(additions.max(axis=1), -additions.min(axis=1)).astype(np.float64)
        _require_finite(largest, additions, "what is added to query row", np.arange(len(queries)))
        magnitudes += largest
    has_factors = bool(catalogue.factors.ups.size)
    magnitudes *= catalogue.factors.most
    if (magnitudes > FLOAT32_MAX).any():
        row = int(np.argmax(magnitudes > FLOAT32_MAX))
        raise ValueError(f"scores of query row {row} could reach {magnitudes[row]:g} and overflow float32")
    dims = queries.shape[1] + bool(additions.size) + 2 * has_factors
    if dims == 1 and is_in_order:
        return np.zeros(magnitudes.size)
    tiniest = 2.0**-148 * (dims + 2) * catalogue.factors.most
    slacks: NDArray[np.float64] = 2.0**-23 * (1.01 * dims + 4) * magnitudes + tiniest
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


def _require_finite(bounds: NDArray[Any], vectors: NDArray[np.float32], role: str, names: NDArray[Any]) -> None:
    if not np.isfinite(bounds).all():
        row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise ValueError(f"{role} {names[row]} is not finite")


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
        tile = queries.at(rows)
        leaders = no_leaders(room.leaders, tile.slacks, tile.floors)
        _lead(leaders, tile, catalogue, k, rank, room.searching, room.products[: len(tile.slacks) * TILE_ITEMS])
        vectors = Vectors(tile.vectors, catalogue.vectors, catalogue.items, tile.additions, catalogue.factors.ups)
        report_best(leaders, vectors, k, best.scores[rows, :k], best.indices[rows, :k], is_certain[rows])
    return np.flatnonzero(~is_certain)


@compiled
def _lead(
    leaders: Leaders,
    queries: Queries,
    catalogue: Catalogue,
    k: int,
    rank: int,
    searching: NDArray[np.float32],
    buffer: NDArray[np.float32],
) -> None:
    """Walk the items, tile by tile, with the queries that an item ahead could still reach."""
    items, cursors = catalogue.vectors, queries.starts.copy()
    factors = catalogue.factors
    vectors = Vectors(queries.vectors, items, catalogue.items, queries.additions, factors.ups)
    rows, tile_items, n_gathered = _rows_that_get_any(queries), buffer.size // cursors.size, 0
    for start in range(0, items.shape[0], tile_items):
        rows = rows[: _keep_searching(rows, leaders, queries, catalogue.bounds, factors.largest, start)]
        if rows.size == 0:
            return
        if rows.size != n_gathered:
            n_gathered = rows.size
            for place in range(n_gathered):
                searching[place] = queries.vectors[rows[place]]
        tile = items[start : start + tile_items]
        products = buffer[: rows.size * tile.shape[0]].reshape(rows.size, tile.shape[0])
        np.dot(searching[: rows.size], tile.T, products)
        if queries.additions.size > 0:
            _add(products, rows, queries.additions, start)
        if factors.ups.size > 0:
            _boost(products, factors, start)
        _mask(products, rows, catalogue.first_place + start, catalogue.excluded, cursors, queries)
        if start == 0 and rank > 0:
            guess_limits(leaders, products, rows, rank)
        admit(leaders, products, rows, start, k, vectors)


@compiled
def _rows_that_get_any(queries: Queries) -> NDArray[np.intp]:
    """The queries that do not exclude everything."""
    rows, count = np.arange(queries.starts.size), 0
    for row in range(rows.size):
        rows[count] = row
        count += not queries.are_allowed[row] or queries.starts[row] < queries.ends[row]
    return rows[:count]


@compiled
def _keep_searching(
    rows: NDArray[np.intp], leaders: Leaders, queries: Queries, bounds: ItemBounds, largest_factor: float, start: int
) -> int:
    """Move the queries that an item from `start` on could reach to the front; give their number."""
    if bounds.norms[0] == np.inf:
        return rows.size
    kept = 0
    for place in range(rows.size):
        row = rows[place]
        rows[kept] = row
        bound = score_bound(queries.vectors[row], queries.norms[row], bounds, start)
        kept += not boosted(bound, largest_factor) <= leaders.limits[row]
    return kept


@compiled
def _add(scores: NDArray[np.float32], rows: NDArray[np.intp], additions: NDArray[np.float32], first: int) -> None:
    """Add to the scores of some queries what is theirs of items from `first` on."""
    for place in range(rows.size):
        row, added = scores[place], additions[rows[place], first : first + scores.shape[1]]
        for item in range(row.size):
            row[item] += added[item]


@compiled
def _boost(scores: NDArray[np.float32], factors: Factors, first: int) -> None:
    """Multiply the scores of items from `first` on by what is theirs."""
    # Slices and both products for every score: so the loop is one of vector instructions.
    ups, downs = factors.ups[first : first + scores.shape[1]], factors.downs[first : first + scores.shape[1]]
    for place in range(scores.shape[0]):
        row = scores[place]
        for item in range(row.size):
            score = row[item]
            up, down = score * ups[item], score * downs[item]
            row[item] = up if score > 0 else down


@compiled
def _mask(
    scores: NDArray[np.float32],
    rows: NDArray[np.intp],
    first_place: int,
    excluded: NDArray[np.int32],
    cursors: NDArray[np.int64],
    queries: Queries,
) -> None:
    """Set the scores of excluded places to -inf; `cursors` say how far each query's list has been walked."""
    end_place = first_place + scores.shape[1]
    for place in range(rows.size):
        row = rows[place]
        cursor, end, first_hidden = cursors[row], queries.ends[row], 0
        while cursor < end and excluded[cursor] < end_place:
            column = excluded[cursor] - first_place
            if column >= 0:
                if queries.are_allowed[row]:
                    scores[place, first_hidden:column] = -np.inf
                    first_hidden = column + 1
                else:
                    scores[place, column] = -np.inf
            cursor += 1
        if queries.are_allowed[row]:
            scores[place, first_hidden:] = -np.inf
        cursors[row] = cursor
