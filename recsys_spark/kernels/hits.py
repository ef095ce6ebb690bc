"""Which of a query's recommended items are relevant."""

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.jit import compiled, kernel_input

_NONE, _RECOMMENDED, _RELEVANT = 0, 1, 2


def mark_hits(recommended: NDArray[np.int64], relevant: IndexLists) -> NDArray[np.bool_]:
    """Tell which recommended items, (q, k), -1 for none, are in the query's relevant list, in any order, (q, k).

    Raises ValueError for an item that a query has twice in either. Memory: 8 bytes x the largest position.
    """
    hits = np.zeros(recommended.shape, np.bool_)
    n_items = 1 + max(int(recommended.max(initial=-1)), int(relevant.indices.max(initial=-1)))
    given, indptr, indices = (
        kernel_input(array, np.int64) for array in (recommended, relevant.indptr, relevant.indices)
    )
    twice, query, item = _mark(given, indptr, indices, np.zeros((2, n_items), np.int32), hits)
    if twice != _NONE:
        role = "recommended" if twice == _RECOMMENDED else "relevant"
        raise ValueError(f"{role} item {item} appears more than once for query row {query}")
    return hits


@compiled
def _mark(
    recommended: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    marks: NDArray[np.int32],
    hits: NDArray[np.bool_],
) -> tuple[int, int, int]:
    """`marks` (2, items) hold the number of the last query, from 1, that has listed an item, that wants it."""
    for query in range(recommended.shape[0]):
        number = np.int32(query + 1)
        for place in range(indptr[query], indptr[query + 1]):
            item = indices[place]
            if marks[1, item] == number:
                return _RELEVANT, query, item
            marks[1, item] = number
        for place in range(recommended.shape[1]):
            item = recommended[query, place]
            if item < 0:
                continue
            if marks[0, item] == number:
                return _RECOMMENDED, query, item
            marks[0, item] = number
            hits[query, place] = marks[1, item] == number
    return _NONE, 0, 0
