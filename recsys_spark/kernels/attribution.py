"""How much each of a user's items counts in the vector that he is scored by: factors and scales of `kernels.reasons`.

A score u.v_i becomes a sum over the user's items j of f_j sum_d m_d v_jd v_id, with factors f and scales m of his own.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.least_squares import FixedSide, WholeDataLoss
from recsys_spark.kernels.pooling import SHORTEST, pool_weighted
from recsys_spark.kernels.reasons import AHEAD
from recsys_spark.kernels.simd import dot, prefetch

DAMPING = 0.1  # of the mean, added to the diagonal of a metric: directions that few items have count no more than that

Floats = NDArray[np.float32]


class Attribution(NamedTuple):
    """The user's items, with factors for values, and the scales of their products, (rows, d)."""

    rows: CsrRows
    scales: Floats


def pooled_attribution(rows: CsrRows, weights: Floats, vectors: Floats, is_unit: bool) -> Attribution:
    """Of users that are the sum of their items' vectors, (n, d), times weights, (nnz,); divided by its length if unit.

    The terms are exact.
    """
    factors = weights
    if is_unit:
        pooled = pool_weighted(rows, weights, vectors)
        lengths = np.sqrt(np.maximum(np.einsum("rd,rd->r", pooled, pooled), SHORTEST))
        factors = weights / np.repeat(lengths, np.diff(rows.indptr))
    return Attribution(_with_values(rows, factors), np.ones((rows.n_rows, vectors.shape[1]), np.float32))


def least_squares_attribution(
    rows: CsrRows, users: Floats, turned: Floats, diagonal: Floats, loss: WholeDataLoss, n_fixed: int
) -> Attribution:
    """Of users that solve the least squares of `solve_rows`, where all entries weigh 1.

    With A = D + sum_j v_j v_j^T, D = unobserved_weight G + penalty I, a solution of A u = sum_j v_j has
    D u = sum_j (1 - u.v_j) v_j, so that u.v_i = sum_j (1 - u.v_j) v_j^T D^-1 v_i: an item tells by how much it was not
    expected, and by how alike it is to the other among all items (a representer theorem: Yeh et al., NeurIPS 2018).
    The terms of Hu, Koren, Volinsky (ICDM 2008), v_j^T A^-1 v_i, have the same sum, and take a solution a user.
    Users, (rows, d), and items, `turned` (n, d), are turned so that G is the `diagonal`, of `n_fixed` items.
    The terms are exact for exact solutions.
    """
    penalties = loss.l2 * (np.diff(rows.indptr) + loss.unobserved_weight * n_fixed)
    scales = 1.0 / np.maximum(loss.unobserved_weight * diagonal + penalties[:, None], np.finfo(np.float32).tiny)
    own = _own_scores(rows, users, turned)
    return Attribution(_with_values(rows, np.float32(1.0) - own), scales.astype(np.float32))


def even_attribution(rows: CsrRows, users: Floats, turned: Floats, diagonal: Floats, n_fixed: int) -> Attribution:
    """Of users whose vectors are free: as if all of their items counted the same, so that these get near their scores.

    The metric is that of a fold-in, the inverse of the items' mean square, damped; the factor is that of least squares
    on the user's own items. What is not explained so is the residual. Shapes are as above.
    """
    squares = diagonal / max(n_fixed, 1)
    metric = 1.0 / np.maximum(squares + DAMPING * squares.mean(), np.finfo(np.float32).tiny)
    ones = np.ones(rows.nnz, np.float32)
    scales = np.tile(metric.astype(np.float32), (rows.n_rows, 1))
    alike = _own_scores(rows, pool_weighted(rows, ones, turned) * scales, turned)
    own, owners = _own_scores(rows, users, turned), np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
    fitted, squared = (
        np.bincount(owners, each.astype(np.float64) * alike, minlength=rows.n_rows) for each in (own, alike)
    )
    factors = np.divide(fitted, squared, out=np.zeros(rows.n_rows), where=squared > 0)
    return Attribution(_with_values(rows, np.repeat(factors, np.diff(rows.indptr))), scales)


def turned_vectors(vectors: Floats, fixed: FixedSide) -> Floats:
    """Vectors (n, d) turned as those of the fixed side are."""
    return vectors @ fixed.axes


def _with_values(rows: CsrRows, values: NDArray[np.floating]) -> CsrRows:
    return CsrRows(rows.indptr, rows.indices, values.astype(np.float32), rows.n_columns)


def _own_scores(rows: CsrRows, users: Floats, vectors: Floats) -> Floats:
    """The product of each row's vector with that of each of its columns, (nnz,)."""
    scores = np.empty(rows.nnz, np.float32)
    arrays = kernel_input(rows.indptr, np.int64), kernel_input(rows.indices, np.int32)
    _fill_own_scores(*arrays, kernel_input(users, np.float32), kernel_input(vectors, np.float32), scores)
    return scores


@compiled
def _fill_own_scores(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], users: Floats, vectors: Floats, scores: Floats
) -> None:
    for row in range(users.shape[0]):
        for entry in range(indptr[row], indptr[row + 1]):
            if entry + AHEAD < indices.size:
                prefetch(vectors[indices[entry + AHEAD]])
            scores[entry] = np.float32(dot(users[row], vectors[indices[entry]]))
