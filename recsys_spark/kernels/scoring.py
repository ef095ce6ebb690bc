"""The k items of largest dot product for each query, without the items it must not get.

Matrix products of tiles, each reduced to what can still be among the k largest while it is in the cache.
Nothing of the size of queries x items is ever held.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.leaders import CHUNK, Leaders, Vectors, drop_hopeless, no_leaders, report_best
from recsys_spark.kernels.topk import TopK, empty_top_k, require_k

TILE_QUERIES = 256
TILE_ITEMS = 2048  # a tile of scores stays in the second-level cache
PART = 16

FLOAT32_MAX = float(np.finfo(np.float32).max)


def score_top_k(
    query_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    excluded: IndexLists,
    k: int,
    first_item: int = 0,
) -> TopK:
    """Find the k items with the largest dot products with each query, ties by the smaller item.

    `query_vectors` (q, d) and `item_vectors` (n, d), which may be memory-mapped, are float32; vector j is of
    item `first_item + j`. `excluded` lists for each query, ascending, the items it never gets, wherever they
    lie. Scores are float64 sums by ascending dimension rounded to float32 (`defined_score`), whatever the
    block or shard; fewer than k items are padded with -1 and -inf.
    Raises ValueError for k < 1, shapes or dtypes that do not match, an exclusion list that is not ascending,
    a vector that is not finite, or a query whose scores could overflow float32.
    """
    require_k(k)
    _require_matching(query_vectors, item_vectors, excluded)
    slacks = _slacks(query_vectors, item_vectors, first_item)
    indptr, indices = kernel_input(excluded.indptr, np.int64), kernel_input(excluded.indices, np.int64)
    _require_ascending(indptr, indices)
    vectors = Vectors(kernel_input(query_vectors, np.float32), kernel_input(item_vectors, np.float32))
    best = empty_top_k(query_vectors.shape[0], k, -np.inf, np.float32)
    kept = min(k, max(item_vectors.shape[0], 1))
    buffer = np.empty(min(TILE_QUERIES, slacks.size) * TILE_ITEMS, np.float32)
    for start in range(0, query_vectors.shape[0], TILE_QUERIES):
        stop = start + TILE_QUERIES
        tile = Vectors(vectors.queries[start:stop], vectors.items)
        leaders = _lead(tile, slacks[start:stop], indptr[start : stop + 1], indices, first_item, kept, buffer)
        report_best(leaders, tile, first_item, kept, best.scores[start:stop, :kept], best.indices[start:stop, :kept])
    return best


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
    query_vectors: NDArray[np.float32], item_vectors: NDArray[np.float32], first_item: int
) -> NDArray[np.float64]:
    """Bound how far a float32 score can stray below the k-th and still be among the k best, (q,).

    In any order of addition a float32 product of d terms is off by at most d u m, u = 2^-24, with m the sum of
    their magnitudes (Higham 2002, section 3.1), and the defined score by u m; both for the k-th and for the
    candidate. 2^-149 a term covers products below the normal range. A single product is rounded but once.
    """
    widths = _largest_magnitudes(kernel_input(item_vectors, np.float32)).astype(np.float64)
    _require_finite(widths, item_vectors, "item", first_item)
    magnitudes: NDArray[np.float64] = np.abs(query_vectors).astype(np.float64) @ widths
    _require_finite(magnitudes, query_vectors, "query row", 0)
    if (magnitudes > FLOAT32_MAX).any():
        row = int(np.argmax(magnitudes > FLOAT32_MAX))
        raise ValueError(f"scores of query row {row} could reach {magnitudes[row]:g} and overflow float32")
    dims = query_vectors.shape[1]
    if dims == 1:
        return np.zeros(magnitudes.size)
    slacks: NDArray[np.float64] = 2.0**-23 * (1.01 * dims + 4) * magnitudes + 2.0**-148 * (dims + 2)
    return slacks


@compiled
def _largest_magnitudes(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest magnitude in each dimension, (d,), NaN where a value is not finite; NumPy takes ten times as long."""
    largest = np.zeros(vectors.shape[1], np.float32)
    nothing = np.zeros(vectors.shape[1], np.float32)
    for row in range(vectors.shape[0]):
        magnitudes = np.abs(vectors[row])
        for dimension in range(magnitudes.size):
            magnitude = magnitudes[dimension]
            largest[dimension] = magnitude if magnitude > largest[dimension] else largest[dimension]
            nothing[dimension] += magnitude * np.float32(0.0)
    return largest + nothing


def _require_finite(bounds: NDArray[np.float64], vectors: NDArray[np.float32], role: str, first: int) -> None:
    if not np.isfinite(bounds).all():
        row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise ValueError(f"the vector of {role} {first + row} is not finite")


def _require_ascending(indptr: NDArray[np.int64], indices: NDArray[np.int64]) -> None:
    row = _first_not_ascending(indptr, indices)
    if row >= 0:
        raise ValueError(f"the excluded items of query row {row} are not ascending")


@compiled
def _first_not_ascending(indptr: NDArray[np.int64], indices: NDArray[np.int64]) -> int:
    for row in range(indptr.size - 1):
        for entry in range(indptr[row] + 1, indptr[row + 1]):
            if indices[entry] < indices[entry - 1]:
                return row
    return -1


def _lead(
    vectors: Vectors,
    slacks: NDArray[np.float64],
    indptr: NDArray[np.int64],
    excluded: NDArray[np.int64],
    first_item: int,
    k: int,
    buffer: NDArray[np.float32],
) -> Leaders:
    leaders, cursors = no_leaders(slacks, k), indptr[:-1].copy()
    for start in range(0, vectors.items.shape[0], TILE_ITEMS):
        items = vectors.items[start : start + TILE_ITEMS]
        products = buffer[: slacks.size * items.shape[0]].reshape(slacks.size, items.shape[0])
        np.dot(vectors.queries, items.T, out=products)
        _mask(products, first_item + start, excluded, cursors, indptr)
        _reduce(products, start, leaders, k, vectors)
    return leaders


@compiled
def _mask(
    scores: NDArray[np.float32],
    first_item: int,
    excluded: NDArray[np.int64],
    cursors: NDArray[np.int64],
    indptr: NDArray[np.int64],
) -> None:
    """Set the scores of excluded items to -inf; `cursors` say how far each query's list has been walked."""
    end_item = first_item + scores.shape[1]
    for query in range(scores.shape[0]):
        cursor, end = cursors[query], indptr[query + 1]
        while cursor < end and excluded[cursor] < end_item:
            if excluded[cursor] >= first_item:
                scores[query, excluded[cursor] - first_item] = -np.inf
            cursor += 1
        cursors[query] = cursor


@compiled
def _reduce(scores: NDArray[np.float32], first_row: int, leaders: Leaders, k: int, vectors: Vectors) -> None:
    # Locals, because every access to a tuple's array counts references.
    leading_scores, leading_rows = leaders.scores, leaders.rows
    counts, limits = leaders.counts, leaders.limits
    for query in range(counts.size):
        place = 0
        while True:
            place, counts[query] = _append_above(
                scores[query],
                place,
                limits[query],
                first_row,
                leading_scores[query],
                leading_rows[query],
                counts[query],
            )
            if place >= scores.shape[1]:
                break
            drop_hopeless(leaders, query, k, vectors)


@compiled
def _append_above(
    scores: NDArray[np.float32],
    place: int,
    limit: float,
    first_row: int,
    leading_scores: NDArray[np.float32],
    leading_rows: NDArray[np.int64],
    count: int,
) -> tuple[int, int]:
    """Append the scores above the limit from `place` on; give the place where the room ended, and the count."""
    for start in range(place, scores.size, CHUNK):
        chunk = scores[start : start + CHUNK]
        if not _any_above(chunk, limit):
            continue
        if count + CHUNK > leading_scores.size:
            return start, count
        for part in range(0, chunk.size, PART):
            few = chunk[part : part + PART]
            if _any_above(few, limit):
                for offset in range(few.size):  # no branch: which scores are above cannot be predicted
                    leading_scores[count] = few[offset]
                    leading_rows[count] = first_row + start + part + offset
                    count += few[offset] > limit
    return scores.size, count


@compiled
def _any_above(scores: NDArray[np.float32], limit: float) -> bool:
    # In this form, over a slice and without a branch, it becomes vector instructions: 40 times faster.
    is_above = False
    for place in range(scores.size):
        is_above |= scores[place] > limit
    return is_above
