"""Products with the head of a tile: columns so popular that whole ones, in vector instructions, beat their postings."""

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.postings import RowArrays, Tile
from recsys_spark.kernels.simd import WIDTH, add_multiples


@compiled
def start_scores(queries: RowArrays, first: int, n_queries: int, tile: Tile, scores: NDArray[np.float32]) -> None:
    """Fill `scores`, (queries or more, rows or more), with u.v - |v|^2 / 2 over the head, for queries from `first` on.

    All is scaled; padding gets -inf.
    """
    columns, n_head, n_scores, sums = (
        tile.whole_columns.ravel(),
        tile.whole_columns.shape[1],
        scores.shape[1],
        scores.ravel(),
    )
    indptr, numbers, factors = _head_entries(queries, first, n_queries, tile.head_of, tile.scale)
    for row in range(0, tile.first_scores.size, WIDTH):
        base = row * n_head
        for query in range(n_queries):
            place, start, stop = query * n_scores + row, indptr[query], indptr[query + 1]
            add_multiples(sums, place, tile.first_scores, row, columns, base, numbers, factors, start, stop)


@compiled
def _head_entries(
    queries: RowArrays, first: int, n_queries: int, head_of: NDArray[np.int32], scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The queries' entries in head columns, as CSR arrays over the head."""
    start, stop = queries.indptr[first], queries.indptr[first + n_queries]
    indptr = np.zeros(n_queries + 1, np.int64)
    numbers, factors = np.empty(stop - start, np.int32), np.empty(stop - start, np.float32)
    n_found = 0
    for query in range(n_queries):
        for entry in range(queries.indptr[first + query], queries.indptr[first + query + 1]):
            number = head_of[queries.indices[entry]]
            if number >= 0:
                numbers[n_found], factors[n_found] = number, np.float32(queries.values[entry] * scale)
                n_found += 1
        indptr[query + 1] = n_found
    return indptr, numbers, factors
