"""Linear models of items by items: what a user's items say about every item, learned in closed form."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from recsys_spark.kernels.csr import CsrRows, require_valid_columns

_OVERSAMPLED, _ITERATIONS = 32, 12
_STRIP = 256  # columns of the Gram matrix at once

Floats = NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)


def ease_weights(rows: CsrRows, l2: float) -> Floats:
    """The weights B (n, n) that minimise |X - X B|^2 + l2 |B|^2 with a diagonal of 0, X being the rows' pattern.

    B = I - P / diag(P), P = (X^T X + l2 I)^-1. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    Time grows with n^3; where rows are at most half as many as columns, with rows^3 and pairs x n. Bytes: 12 x n^2.
    Raises ValueError for an l2 that is not above 0, or columns that are out of range or not ascending.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, got {l2}")
    if rows.n_columns == 0:  # which LAPACK takes for a mistake
        return np.zeros((0, 0), np.float32)
    pattern = _pattern(rows)
    if 2 * rows.n_rows <= rows.n_columns:
        return _ease_weights_by_rows(pattern, l2)
    return _weights_without_own(_regularised_inverse(pattern, l2))


def _regularised_inverse(matrix: sparse.csr_array, l2: float) -> NDArray[np.float64]:
    """(M^T M + l2 I)^-1, (n, n), of which what is below the diagonal is not to be looked at."""
    gram = _gram(matrix, np.float64)
    gram[np.diag_indices_from(gram)] += l2
    # Transposed it is in the order of LAPACK, which then needs no copy.
    factor, info = linalg.lapack.dpotrf(gram.T, lower=True, overwrite_a=True)
    inverse, failed = linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
    if info or failed:
        raise ValueError(f"a Gram matrix of {len(gram)} rows could not be inverted: raise l2 above {l2}")
    transposed: NDArray[np.float64] = inverse.T
    return transposed


def _ease_weights_by_rows(pattern: sparse.csr_array, l2: float) -> Floats:
    """The same weights: by Woodbury's identity l2 P = I - M, M = X^T A X with A = (X X^T + l2 I)^-1 of rows by rows."""
    n_rows, n = pattern.shape
    if n_rows == 0:
        return np.zeros((n, n), np.float32)
    transposed = sparse.csr_array(pattern.astype(np.float64).T)
    inverse = _regularised_inverse(transposed, l2)
    inverse = np.triu(inverse) + np.triu(inverse, 1).T
    products = np.ascontiguousarray((transposed @ inverse).T)  # A X, as A is symmetric
    own = np.asarray(pattern.multiply(products).sum(axis=0)).ravel()
    weights, scales = np.empty((n, n), np.float32), 1 / (1 - own)
    for start in range(0, n, _STRIP):
        weights[start : start + _STRIP] = (transposed[start : start + _STRIP] @ products) * scales
    np.fill_diagonal(weights, 0.0)
    return weights


def _weights_without_own(inverse: NDArray[np.float64]) -> Floats:
    """I - P / diag(P) of a symmetric P, (n, n), of which what is below the diagonal is not looked at."""
    weights, scales = np.empty(inverse.shape, np.float32), -1.0 / np.diag(inverse)
    for start in range(0, len(inverse), _STRIP):
        strip = slice(start, min(start + _STRIP, len(inverse)))
        weights[strip, : strip.start] = inverse[: strip.start, strip].T * scales[: strip.start]
        weights[strip, strip.stop :] = inverse[strip, strip.stop :] * scales[strip.stop :]
        square = np.triu(inverse[strip, strip])
        weights[strip, strip] = (square + np.triu(square, 1).T) * scales[strip]
    np.fill_diagonal(weights, 0.0)
    return weights


def graph_filter_weights(rows: CsrRows, dims: int, low_pass: float, seed: int) -> Floats:
    """The weights N^T N + a Di^-1/2 V V^T Di^1/2 (n, n), `low_pass` being a.

    N = Du^-1/2 R Di^-1/2, R the rows' pattern, Du and Di counts of its rows and columns; V (n, d) are the leading right
    singular vectors of N: at most `dims`, and fewer than rows and items, nearly. The graph filter GF-CF of Shen et al.,
    "How Powerful is Graph Convolution for Recommendation?", CIKM 2021. Bytes: 8 x n^2. The last bits depend on the
    number of threads. Raises ValueError for columns that are out of range or not ascending.
    """
    pattern = _pattern(rows)
    of_rows, of_items = (np.sqrt(np.maximum(pattern.sum(axis=axis), 1)).astype(np.float32) for axis in (1, 0))
    normalised = sparse.csr_array(sparse.diags_array(1 / of_rows) @ pattern @ sparse.diags_array(1 / of_items))
    weights = _gram(normalised, np.float32)
    known = min(dims, min(normalised.shape) - 1)
    if known < 1 or normalised.nnz == 0:
        return weights
    vectors = _leading_right_vectors(normalised.astype(np.float64), known, seed).T.astype(np.float32)
    left, right = (vectors / of_items).T * np.float32(low_pass), vectors * of_items
    for strip in range(0, len(weights), _STRIP):
        weights[strip : strip + _STRIP] += left[strip : strip + _STRIP] @ right
    return weights


def _leading_right_vectors(matrix: sparse.csr_array, dims: int, seed: int) -> NDArray[np.float64]:
    """The leading right singular vectors of a matrix (m, n), nearly, (n, dims).

    By subspace iteration with some more than are wanted: Halko et al., SIAM Review 53(2), 2011. Users who have little
    have singular values that lie close together, for which exact vectors take many times as long and are worth nothing
    more.
    """
    width = min(dims + _OVERSAMPLED, min(matrix.shape))
    basis = np.random.default_rng(seed).standard_normal((matrix.shape[1], width))
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    seen = matrix @ basis
    _, axes = np.linalg.eigh(seen.T @ seen)
    leading: NDArray[np.float64] = basis @ axes[:, -dims:]
    return leading


def score_by_items(rows: CsrRows, weights: Floats) -> Floats:
    """The sums of the weights (n, m) of each row's items times their values, (rows, m).

    A row's bits depend on the row and the weights alone.
    """
    if len(weights) != rows.n_columns:
        raise ValueError(f"rows have {rows.n_columns} columns, but there are weights of {len(weights)} items")
    require_valid_columns(rows, "rows")
    matrix = sparse.csr_array((rows.values, rows.indices, rows.indptr), (rows.n_rows, rows.n_columns))
    return np.asarray(matrix @ weights, np.float32)


def _pattern(rows: CsrRows) -> sparse.csr_array:
    require_valid_columns(rows, "rows")
    ones = np.ones(rows.nnz, np.float32)
    return sparse.csr_array((ones, rows.indices, rows.indptr), (rows.n_rows, rows.n_columns))


def _gram(matrix: sparse.csr_array, dtype: type[Real]) -> NDArray[Real]:
    """The products of all columns, (n, n), a strip of columns at a time."""
    n = matrix.shape[1]
    products, transposed = np.empty((n, n), dtype), sparse.csr_array(matrix.T)
    for start in range(0, n, _STRIP):
        products[start : start + _STRIP] = (transposed[start : start + _STRIP] @ matrix).toarray()
    return products
