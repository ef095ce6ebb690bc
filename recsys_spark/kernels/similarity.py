"""How similar users are: by the distance of their behavior, and learned from it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, IndexLists, require_valid_columns
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.pooling import pool_rows, unit_rows
from recsys_spark.kernels.simd import dot


@dataclass(frozen=True)
class Similarity:
    """Similarity of a distance: 1 / (1 + d), or exp(-d^2 / (2 bandwidth^2))."""

    kind: Literal["inverse", "gaussian"]
    bandwidth: float

    def of(self, distances: NDArray[np.float64]) -> NDArray[np.float32]:
        """Similarities in 0-1 of distances of any shape."""
        if self.kind == "inverse":
            return (1.0 / (1.0 + distances)).astype(np.float32)
        return np.exp(-np.square(distances / self.bandwidth) / 2.0).astype(np.float32)


def embed_behavior(rows: CsrRows, item_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The pooled vectors of each row's items at length one, (rows, d); 0 where their sum is 0.

    `item_vectors` is (n_columns, d); stored values do not count. A row's bits depend on the row and the vectors alone.
    Raises ValueError for vectors of another number of items, or columns that are not ascending.
    """
    return unit_rows(pool_rows(rows, item_vectors))


def learned_similarities(
    queries: NDArray[np.float32],
    neighbors: IndexLists,
    similarities: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    temperature: float,
) -> NDArray[np.float32]:
    """Similarities a = s exp(cosine / temperature), scaled so that those of a query add up to what they did before.

    Attention over the nearest users: softmax_v(ln s_uv + e_u . e_v / temperature), times sum_v s_uv (Vaswani et al.,
    NIPS 2017, with a prior). Whatever the scale of cosines, scores and shrinkage keep theirs.
    `queries` (q, d) and `embeddings` (m, d) are of length 1, or 0: the same cosine with all, so that similarities stay.
    `neighbors` lists rows of `embeddings` for each query, -1 being padding, whose similarity does not count;
    `similarities` has a value >= 0 a listed neighbor. Raises ValueError for shapes that do not match, a neighbor that
    is no row, or a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if len(queries) != neighbors.n_rows or queries.shape[1:] != embeddings.shape[1:]:
        raise ValueError(f"queries {queries.shape} do not match {neighbors.n_rows} lists, or {embeddings.shape}")
    if similarities.shape != neighbors.indices.shape:
        raise ValueError(f"{neighbors.indices.size} neighbors but similarities {similarities.shape}")
    if neighbors.indices.size and neighbors.indices.max() >= len(embeddings):
        raise ValueError(f"neighbor {neighbors.indices.max()} is beyond {len(embeddings)} embeddings")
    learned = similarities.astype(np.float32)  # a copy
    _learn(
        kernel_input(queries, np.float32),
        kernel_input(neighbors.indptr, np.int64),
        kernel_input(neighbors.indices, np.int64),
        kernel_input(embeddings, np.float32),
        float(temperature),
        learned,
    )
    return learned


@compiled
def _learn(
    queries: NDArray[np.float32],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    temperature: float,
    learned: NDArray[np.float32],
) -> None:
    for query in range(indptr.size - 1):
        before, after = 0.0, 0.0
        start, stop = indptr[query], indptr[query + 1]
        factors = np.zeros(stop - start)
        for place in range(start, stop):
            if indices[place] >= 0:
                # At most 1, so that nothing overflows; the scale of the factors cancels.
                factors[place - start] = np.exp((dot(queries[query], embeddings[indices[place]]) - 1.0) / temperature)
                before += np.float64(learned[place])
                after += np.float64(learned[place]) * factors[place - start]
        if after > 0.0:
            for place in range(start, stop):
                if indices[place] >= 0:
                    learned[place] = np.float64(learned[place]) * factors[place - start] * (before / after)


def ratings_of_neighbors(rows: CsrRows, neighbors: NDArray[Any], wanted: IndexLists) -> NDArray[np.float32]:
    """What each of a query's neighbors stores for each item listed for the query, (listed, k), 0 for nothing.

    `neighbors` (q, k) are rows, -1 being padding; `wanted` lists columns for each query, ascending. Raises ValueError
    for shapes that do not match, a neighbor that is no row, or columns that are not ascending.
    """
    if len(neighbors) != wanted.n_rows:
        raise ValueError(f"{len(neighbors)} queries but {wanted.n_rows} lists")
    if neighbors.size and neighbors.max() >= rows.n_rows:
        raise ValueError(f"neighbor {neighbors.max()} is beyond {rows.n_rows} rows")
    require_valid_columns(rows, "neighbor")
    ratings = np.zeros((wanted.indices.size, neighbors.shape[1]), np.float32)
    _look_up(
        kernel_input(rows.indptr, np.int64),
        kernel_input(rows.indices, np.int32),
        kernel_input(rows.values, np.float32),
        kernel_input(neighbors, np.int64),
        kernel_input(wanted.indptr, np.int64),
        kernel_input(wanted.indices, np.int32),
        ratings,
    )
    return ratings


@compiled
def _look_up(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    wanted_indptr: NDArray[np.int64],
    wanted: NDArray[np.int32],
    ratings: NDArray[np.float32],
) -> None:
    for query in range(neighbors.shape[0]):
        for place in range(neighbors.shape[1]):
            row = neighbors[query, place]
            if row < 0:
                continue
            entry, last = indptr[row], indptr[row + 1]
            for listed in range(wanted_indptr[query], wanted_indptr[query + 1]):
                while entry < last and indices[entry] < wanted[listed]:
                    entry += 1
                if entry < last and indices[entry] == wanted[listed]:
                    ratings[listed, place] = values[entry]
