"""What the kernel tests share: sparse rows to draw, and the brute force they are compared with."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, IndexLists, csr_from_pairs

NOT_STORED = np.float32(np.nan)

VALUE_POOLS = {
    "ones": [1.0],
    "half stars": [0.5, 1.0, 2.5, 5.0],
    "tenths": [0.1, 0.3, 0.7, 1.0],
    "signed": [-1.5, -0.3, 0.0, 0.3, 2.0],
    "denormal": [1e-45, -1e-44, 1e-40, 1e-38],
    "huge": [3.0e38, -3.4e38, 1e30, 1.0],
    "of all sizes": [1e-45, 1e-20, 0.1, 0.1000001, 1.0, 1e10, -3e38],
}


def rows_of(matrix: Any) -> CsrRows:
    """Rows of a dense matrix in which NaN stands for "not stored"; zeros are stored."""
    dense = np.asarray(matrix, np.float32)
    rows, columns = np.nonzero(~np.isnan(dense))
    return csr_from_pairs(rows, columns, dense[rows, columns], *dense.shape)


def dense_of(rows: CsrRows) -> NDArray[np.float64]:
    dense = np.zeros((rows.n_rows, rows.n_columns))
    dense[np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr)), rows.indices] = rows.values
    return dense


def lists_of(lists: list[list[int]]) -> IndexLists:
    indptr = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
    return IndexLists(indptr, np.array([item for each in lists for item in each], np.int32))


def nothing(n_queries: int) -> IndexLists:
    return lists_of([[] for _ in range(n_queries)])


@st.composite
def sparse_rows(draw: st.DrawFn, max_rows: int = 24, max_columns: int = 6) -> CsrRows:
    pool = VALUE_POOLS[draw(st.sampled_from(sorted(VALUE_POOLS)))]
    n_not_stored = draw(st.integers(0, 2 * len(pool)))
    elements = st.sampled_from([np.float32(value) for value in pool] + [NOT_STORED] * n_not_stored)
    shape = (draw(st.integers(0, max_rows)), draw(st.integers(1, max_columns)))
    return rows_of(draw(arrays(np.float32, shape, elements=elements)))


def random_rows(seed: int, n_rows: int, n_columns: int, density: float, values: str) -> CsrRows:
    rng = np.random.default_rng(seed)
    pool = np.array(VALUE_POOLS[values], np.float32)
    dense = pool[rng.integers(0, pool.size, (n_rows, n_columns))]
    dense[rng.random(dense.shape) >= density] = NOT_STORED
    return rows_of(dense)


def defined_distance(left: dict[int, float], right: dict[int, float]) -> float:
    """The distance as `pairs.measure` defines it, over plain Python floats."""
    only_left = [left[column] * left[column] for column in sorted(left.keys() - right.keys())]
    only_right = [right[column] * right[column] for column in sorted(right.keys() - left.keys())]
    common = 0.0
    for column in sorted(left.keys() & right.keys()):
        common += (left[column] - right[column]) * (left[column] - right[column])
    squares = [float(added_in_lanes(np.array(terms))) if terms else 0.0 for terms in (only_left, only_right)]
    return float(np.sqrt(squares[0] + squares[1] + common))


def brute_force_nearest(
    queries: CsrRows, query_ids: NDArray[Any], candidates: CsrRows, first_candidate_id: int, k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Indices and distances of the k nearest, by sorting all (distance, id)."""
    candidate_dicts = _dicts(candidates)
    indices, distances = [], []
    for query_id, query in zip(query_ids.tolist(), _dicts(queries), strict=True):
        ranked = sorted(
            (defined_distance(query, candidate), first_candidate_id + row)
            for row, candidate in enumerate(candidate_dicts)
            if first_candidate_id + row != query_id
        )[:k]
        missing = k - len(ranked)
        indices.append([row for _, row in ranked] + [-1] * missing)
        distances.append([distance for distance, _ in ranked] + [np.inf] * missing)
    return indices, distances


def _dicts(rows: CsrRows) -> list[dict[int, float]]:
    bounds = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    return [
        dict(zip(rows.indices[start:stop].tolist(), rows.values[start:stop].tolist(), strict=True))
        for start, stop in bounds
    ]


def best_of(scores: NDArray[Any], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The k largest of each row, ties by the smaller index; -inf is never taken."""
    places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.lexsort((places, -scores), axis=-1)[:, :k]
    indices = np.full((scores.shape[0], k), -1)
    values = np.full((scores.shape[0], k), -np.inf, scores.dtype)
    indices[:, : order.shape[1]] = order
    values[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    indices[values == -np.inf] = -1
    return indices, values


def added_in_lanes(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the last axis as `simd.dot` defines them: 16 lanes by ascending place, then halves of the lanes."""
    blocks = -(-terms.shape[-1] // 16)
    padded = np.zeros((*terms.shape[:-1], 16 * blocks))
    padded[..., : terms.shape[-1]] = terms
    lanes = np.cumsum(padded.reshape(*terms.shape[:-1], blocks, 16), axis=-2)[..., -1, :]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def picked_greedily(
    items: list[int],
    scores: list[float],
    k: int,
    weight: float,
    vectors: NDArray[Any],
    categories: list[set[int]] | None,
    most: int,
) -> list[int]:
    """Greedy picks by plain Python, all values computed anew for each of them."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    relevance = {
        item: (score - low) / (high - low) if high > low else 1.0 for item, score in zip(items, scores, strict=True)
    }
    picked: list[int] = []
    while len(picked) < min(k, len(items)):
        left = [item for item in items if item not in picked]
        others = [item for item in picked if vectors[item].any()]
        nearest = {
            item: max(float(vectors[item].astype(float) @ vectors[other].astype(float)) for other in others)
            for item in left
            if others and vectors[item].any()
        }
        mean = sum(nearest.values()) / len(nearest) if nearest else 0.0
        value = {item: (1 - weight) * relevance[item] - weight * nearest.get(item, mean) for item in left}
        full = {
            category
            for each in (categories or [])
            for category in each
            if sum(category in categories[item] for item in picked) >= most
        }
        allowed = [item for item in left if categories is None or not categories[item] & full]
        pool = allowed or left
        picked.append(max(pool, key=lambda item: (value[item], -items.index(item))))
    return picked
