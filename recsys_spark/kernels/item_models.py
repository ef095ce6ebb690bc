"""Linear models of items by items: what a user's items say about every item, learned in closed form."""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from recsys_spark.kernels.csr import CsrRows, require_valid_columns

_STRIP = 1024  # columns of the Gram matrix at once

Floats = NDArray[np.float32]


def ease_weights(rows: CsrRows, l2: float) -> Floats:
    """The weights B (n, n) that minimise |X - X B|^2 + l2 |B|^2 with a diagonal of 0, X being the rows' pattern.

    B = I - P / diag(P), P = (X^T X + l2 I)^-1. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    Bytes: 16 x n^2. Raises ValueError for an l2 that is not above 0, or columns that are out of range or not ascending.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, got {l2}")
    if rows.n_columns == 0:  # which LAPACK takes for a mistake
        return np.zeros((0, 0), np.float32)
    gram = _gram(_pattern(rows)).astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    factor, info = linalg.lapack.dpotrf(gram, lower=True, overwrite_a=True)
    inverse, failed = linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
    if info or failed:
        raise ValueError(f"the Gram matrix of {rows.n_columns} items could not be inverted: raise l2 above {l2}")
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights: Floats = (-inverse / np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return weights


def score_by_items(rows: CsrRows, weights: Floats) -> Floats:
    """The sums of the weights (n, m) of each row's items, (rows, m); stored values do not count.

    A row's bits depend on the row and the weights alone.
    """
    if len(weights) != rows.n_columns:
        raise ValueError(f"rows have {rows.n_columns} columns, but there are weights of {len(weights)} items")
    return np.asarray(_pattern(rows) @ weights, np.float32)


def _pattern(rows: CsrRows) -> sparse.csr_array:
    require_valid_columns(rows, "rows")
    ones = np.ones(rows.nnz, np.float32)
    return sparse.csr_array((ones, rows.indices, rows.indptr), (rows.n_rows, rows.n_columns))


def _gram(matrix: sparse.csr_array) -> Floats:
    """The products of all columns, (n, n), a strip of columns at a time."""
    n = matrix.shape[1]
    products, transposed = np.empty((n, n), np.float32), sparse.csr_array(matrix.T)
    for start in range(0, n, _STRIP):
        products[start : start + _STRIP] = (transposed[start : start + _STRIP] @ matrix).toarray()
    return products
