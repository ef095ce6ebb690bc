"""Items that are listed for queries: their products, and the terms that are there of their scores."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.jit import Whole, compiled, kernel_input
from recsys_spark.kernels.simd import dot

Floats = NDArray[np.float32]


def named_terms(columns: NDArray[np.int32], values: Floats, is_wanted: NDArray[np.bool_]) -> tuple[IndexLists, Floats]:
    """The columns of the terms, (n, most), that are there of the wanted ones, (n,), a list each, and their values."""
    indptr = np.zeros(len(columns) + 1, np.int64)
    found, kept = np.empty(columns.size, np.int32), np.empty(columns.size, np.float32)
    arrays = kernel_input(columns, np.int32), kernel_input(values, np.float32), kernel_input(is_wanted, np.bool_)
    n_found = _name_terms(*arrays, indptr, found, kept)
    return IndexLists(indptr, found[:n_found]), kept[:n_found]


@compiled
def _name_terms(
    columns: NDArray[np.int32],
    values: Floats,
    is_wanted: NDArray[np.bool_],
    indptr: NDArray[np.int64],
    found: NDArray[np.int32],
    kept: Floats,
) -> int:
    n_found = 0
    for item in range(columns.shape[0]):
        if is_wanted[item]:
            for place in range(columns.shape[1]):
                if columns[item, place] < 0:
                    break
                found[n_found], kept[n_found] = columns[item, place], values[item, place]
                n_found += 1
        indptr[item + 1] = n_found
    return n_found


def listed_products(queries: Floats, vectors: Floats, listed: NDArray[Any], first: int = 0) -> Floats:
    """Products of queries (q, d) with columns `first` to `first + d` of listed vectors, (q, k) float32; 0 for padding.

    `listed`, (q, k), holds rows of `vectors`, -1 being padding.
    """
    found = np.zeros(listed.shape, np.float32)
    arrays = kernel_input(queries, np.float32), kernel_input(vectors, np.float32), kernel_input(listed, np.int64)
    _listed_products(*arrays, first, found)
    return found


@compiled
def _listed_products(queries: Floats, vectors: Floats, listed: NDArray[np.int64], first: Whole, found: Floats) -> None:
    for query in range(listed.shape[0]):
        for place in range(listed.shape[1]):
            if listed[query, place] >= 0:
                part = vectors[listed[query, place], first : first + queries.shape[1]]
                found[query, place] = np.float32(dot(queries[query], part))
