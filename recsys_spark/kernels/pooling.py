"""Users as the pooled vectors of their items."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.kernels.csr import CsrRows, require_valid_columns

SHORTEST = 1e-12  # squared length that a vector is divided by, at least

Floats = NDArray[np.float32]


def pool_rows(rows: CsrRows, vectors: Floats) -> Floats:
    """The sum of the vectors, (columns, d), of each row's columns over the root of how many there are, (rows, d).

    Rows without a column are 0. A row's bits depend on the row and the vectors alone.

    Raises:
        ValueError: vectors of another number of columns, or columns that are out of range or not ascending.
    """
    _require_fitting(rows, vectors)
    pattern = sparse.csr_array((np.ones(rows.nnz, np.float32), rows.indices, rows.indptr), (rows.n_rows, len(vectors)))
    counts = np.maximum(np.diff(rows.indptr), 1).astype(np.float32)
    pooled: Floats = np.asarray(pattern @ vectors, np.float32)
    pooled /= np.sqrt(counts)[:, None]
    return pooled


def pool_weighted(rows: CsrRows, weights: Floats, vectors: Floats) -> Floats:
    """The sum of the vectors, (columns, d), of each row's columns times their weights, (nnz,), (rows, d).

    The rows' own values do not count. A row's bits depend on the row, its weights and the vectors alone.

    Raises:
        ValueError: as `pool_rows`.
    """
    _require_fitting(rows, vectors)
    weighted = sparse.csr_array((weights, rows.indices, rows.indptr), (rows.n_rows, len(vectors)))
    return np.asarray(weighted @ vectors, np.float32)


def session_weights(rows: CsrRows, ages: Floats, most: int, half_life: float) -> Floats:
    """Weights of each row's entries by how new they are, (nnz,): 2^(-r / half_life) for the r-th newest, from 0.

    Entries after the first `most` weigh 0. `ages`, (nnz,), in any unit; NaN is older than all, equal ones go by column.
    """
    owners = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
    order = np.lexsort((np.nan_to_num(ages, nan=np.inf), owners))
    ranks = np.empty(rows.nnz, np.int64)
    ranks[order] = np.arange(rows.nnz) - rows.indptr[owners]
    weights: Floats = np.where(ranks < most, np.exp2(-ranks / half_life), 0.0).astype(np.float32)
    return weights


def unit_rows(vectors: Floats) -> Floats:
    """Vectors (rows, d) divided by their lengths; those of length 0 stay."""
    lengths = np.sqrt(np.maximum(np.einsum("rd,rd->r", vectors, vectors), SHORTEST))
    units: Floats = vectors / lengths[:, None]
    return units


def _require_fitting(rows: CsrRows, vectors: Floats) -> None:
    if len(vectors) != rows.n_columns:
        raise ValueError(f"rows have {rows.n_columns} columns, but there are vectors of {len(vectors)} items")
    require_valid_columns(rows, "rows")
