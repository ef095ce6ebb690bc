"""Vectors of users (or items) by regularised least squares, given those of the other side: a pass of implicit ALS.

Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, in the form of Rendle et al.,
"Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, require_valid_columns
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import dot
from recsys_spark.kernels.threads import one_thread

DUAL_SHARE = 0.75  # rows with fewer entries than this share of the dimensions are solved among their entries
STEPS = 3  # of conjugate gradient
STEPPED_ENTRIES = 16  # below, the exact solution takes no longer
CHUNK_ENTRIES = 1024
ROWS_AT_ONCE = 4096  # of the Gram matrix
ROWS_OF_A_TASK = 256  # few, so that all threads end together
LAPACK_ROWS = 24  # a call of LAPACK costs more than a smaller matrix
BLAS_ROWS = 12  # nor is one of BLAS worth it for fewer

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class WholeDataLoss:
    """What a pass minimises over all user-item pairs, seen or not.

        sum_seen (1 - s)^2 + unobserved_weight sum_all s^2 + sum_rows penalty |x|^2

    with s the product of two vectors, and l2 (n + unobserved_weight x rows of the other side) the penalty of a row with
    n pairs. Rendle et al., "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022, nu = 1.
    """

    unobserved_weight: float
    l2: float

    def penalties(self, rows: CsrRows) -> NDArray[np.float32]:
        """The penalty of each row, (rows,)."""
        counts = np.diff(rows.indptr)
        return (self.l2 * (counts + self.unobserved_weight * rows.n_columns)).astype(np.float32)


class FixedSide(NamedTuple):
    """The other side's vectors, (n, d), turned so that their Gram matrix is diagonal.

    The vectors are `turned`, (n, d), times `axes`, (d, d), transposed; `diagonal`, (d,), is that of the Gram matrix.
    """

    turned: Floats
    diagonal: Floats
    axes: Floats


def fixed_side(vectors: Floats) -> FixedSide:
    """Turn vectors (n, d); memory: as much again.

    Raises:
        ValueError: a vector that is not finite.
    """
    with one_thread():
        gram = np.zeros((vectors.shape[1], vectors.shape[1]))
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part = vectors[start : start + ROWS_AT_ONCE].astype(np.float64)
            gram += part.T @ part
        if not np.isfinite(gram).all():
            row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            raise ValueError(f"vector {row} is not finite")
        values, axes = np.linalg.eigh(gram)
        diagonal = np.maximum(values, 0.0)  # cancellation can dip below zero
        turn = np.ascontiguousarray(axes, np.float32)
        return FixedSide(vectors @ turn, diagonal.astype(np.float32), turn)


def solve_rows(
    rows: CsrRows,
    fixed: FixedSide,
    unobserved_weight: float,
    penalties: Floats,
    threads: int = 1,
    start: Floats | None = None,
) -> tuple[Floats, NDArray[np.float64]]:
    """The vector x of each row, (rows, d), that minimises its share of the loss, and that share, (rows,).

    The share of row r with entries of weight c_j at columns j is

        sum_j c_j (1 - x.v_j)^2 + unobserved_weight sum_all (x.v)^2 + penalties[r] |x|^2.

    With `start`, (rows, d), rows of 16 to 1,024 entries are not solved but brought nearer, from their vector there, by
    three steps of conjugate gradient, which takes a fraction of the time. Rows without entries get zeros. A row's
    vector depends on nothing but the row, its start and the fixed side: not on the rows beside it or the threads.
    Memory: 4 bytes a row and dimension and, unless all weights are a view of one (`rows_of_ones`), an entry; for each
    thread 4 (d + 1024) d + 16 d^2.

    Raises:
        ValueError: columns out of range, weights below 0, penalties that are not above 0, a start of another shape.
    """
    require_valid_columns(rows, "rows")
    if rows.n_columns != len(fixed.turned):
        raise ValueError(f"rows have {rows.n_columns} columns, the fixed side {len(fixed.turned)} vectors")
    if penalties.shape != (rows.n_rows,) or not (penalties > 0).all():
        raise ValueError(f"penalties must be above 0 and of shape ({rows.n_rows},), got {penalties.shape}")
    if rows.nnz and not _weights(rows).min() >= 0:
        raise ValueError(f"weights must be 0 or above, got {rows.values.min()}")
    solved = np.zeros((rows.n_rows, fixed.turned.shape[1]), np.float32)
    if start is not None and start.shape != solved.shape:
        raise ValueError(f"start must be of shape {solved.shape}, got {start.shape}")
    shares = np.zeros(rows.n_rows)
    arrays = (kernel_input(rows.indptr, np.int64), kernel_input(rows.indices, np.int32))
    roots, vectors = kernel_input(np.sqrt(_weights(rows)), np.float32), kernel_input(fixed.turned, np.float32)
    diagonal = kernel_input(unobserved_weight * fixed.diagonal, np.float32)
    lowest, axes = kernel_input(penalties, np.float32), kernel_input(fixed.axes.T, np.float32)
    origins = kernel_input(np.zeros((0, solved.shape[1])) if start is None else start, np.float32)

    def solve(first: int) -> None:
        _solve(*arrays, roots, vectors, diagonal, axes, lowest, origins, first, first + ROWS_OF_A_TASK, solved, shares)

    with one_thread(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(solve, range(0, rows.n_rows, ROWS_OF_A_TASK)))
    return solved, shares


def _weights(rows: CsrRows) -> Floats:
    """Those of all entries, or when they are all a view of one, of the longest row."""
    if rows.nnz == 0 or rows.values.strides != (0,):
        return rows.values
    return np.full(int(np.diff(rows.indptr).max()), rows.values[0], np.float32)


@compiled
def _solve(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    roots: Floats,
    vectors: Floats,
    diagonal: Floats,
    axes: Floats,
    penalties: Floats,
    origins: Floats,
    first: int,
    end: int,
    solved: Floats,
    shares: NDArray[np.float64],
) -> None:
    end, dims = min(end, indptr.size - 1), diagonal.size
    room, weighed = np.empty((max(CHUNK_ENTRIES, dims), dims), np.float32), np.empty((dims, dims), np.float32)
    matrix, own_diagonal = np.empty((dims, dims), np.float32), np.empty(dims, np.float32)
    solution, inverses = np.empty(dims, np.float32), np.empty(dims, np.float32)
    for row in range(first, end):
        columns = indices[indptr[row] : indptr[row + 1]]
        start_of_roots = indptr[row] if roots.size == indices.size else 0  # else all rows have the same
        targets = roots[start_of_roots : start_of_roots + columns.size]
        for dimension in range(dims):
            own_diagonal[dimension] = diagonal[dimension] + penalties[row]
            inverses[dimension] = np.float32(1.0) / own_diagonal[dimension]
            solution[dimension] = 0.0
        if origins.size > 0 and STEPPED_ENTRIES <= targets.size <= CHUNK_ENTRIES:
            entries = room[: targets.size]
            _gather(columns, targets, vectors, entries)
            for dimension in range(dims):
                solution[dimension] = np.float32(dot(axes[dimension], origins[row]))
            _step_nearer(entries, targets, own_diagonal, solution)
        elif targets.size < DUAL_SHARE * dims:
            entries = room[: targets.size]
            _gather(columns, targets, vectors, entries)
            _solve_among_entries(entries, targets, inverses, weighed[: targets.size], solution)
        else:
            _fill_diagonal(matrix, own_diagonal)
            for start in range(0, targets.size, room.shape[0]):
                chunk = slice(start, min(start + room.shape[0], targets.size))
                entries = room[: chunk.stop - start]
                _gather(columns[chunk], targets[chunk], vectors, entries)
                matrix += np.dot(entries.T, entries)
                _add_multiples(entries, targets[chunk], solution)
            _substitute(_lower_factor(matrix), solution)
        if targets.size <= room.shape[0]:
            missed = targets - np.dot(room[: targets.size], solution)
            shares[row] = dot(missed, missed)
        else:  # the room holds the last of them only
            for entry in range(targets.size):
                miss = targets[entry] * (1.0 - dot(vectors[columns[entry]], solution))
                shares[row] += miss * miss
        for dimension in range(dims):
            shares[row] += own_diagonal[dimension] * solution[dimension] * solution[dimension]
        # One row at a time, because the sums of matrix products depend on the rows beside them.
        _add_multiples(axes, solution, solved[row])


@compiled
def _gather(columns: NDArray[np.int32], factors: Floats, vectors: Floats, gathered: Floats) -> None:
    for entry in range(columns.size):
        column = columns[entry]
        for dimension in range(gathered.shape[1]):
            gathered[entry, dimension] = factors[entry] * vectors[column, dimension]


@compiled
def _fill_diagonal(matrix: Floats, diagonal: Floats) -> None:
    for row in range(diagonal.size):
        for column in range(diagonal.size):
            matrix[row, column] = 0.0
        matrix[row, row] = diagonal[row]


@compiled
def _add_multiples(vectors: Floats, factors: Floats, sums: Floats) -> None:
    for row in range(factors.size):
        for dimension in range(sums.size):
            sums[dimension] += factors[row] * vectors[row, dimension]


@compiled
def _step_nearer(entries: Floats, targets: Floats, diagonal: Floats, solution: Floats) -> None:
    """Bring x nearer to where (D + E'E) x = E't, by conjugate gradient with the diagonal as preconditioner."""
    inverses, direction = np.empty(diagonal.size, np.float32), np.empty(diagonal.size, np.float32)
    left = np.dot(entries.T, targets - np.dot(entries, solution))
    for dimension in range(diagonal.size):
        left[dimension] -= diagonal[dimension] * solution[dimension]
        inverses[dimension] = diagonal[dimension]
    for entry in range(targets.size):
        for dimension in range(diagonal.size):
            inverses[dimension] += entries[entry, dimension] * entries[entry, dimension]
    for dimension in range(diagonal.size):
        inverses[dimension] = np.float32(1.0) / inverses[dimension]
        direction[dimension] = inverses[dimension] * left[dimension]
    length = dot(left, direction)
    for _ in range(STEPS):
        change = np.dot(entries.T, np.dot(entries, direction))
        for dimension in range(diagonal.size):
            change[dimension] += diagonal[dimension] * direction[dimension]
        along = dot(direction, change)
        if along <= 0.0:  # nothing is left
            return
        stride = np.float32(length / along)
        for dimension in range(diagonal.size):
            solution[dimension] += stride * direction[dimension]
            left[dimension] -= stride * change[dimension]
            change[dimension] = inverses[dimension] * left[dimension]
        previous, length = length, dot(left, change)
        for dimension in range(diagonal.size):
            direction[dimension] = change[dimension] + np.float32(length / previous) * direction[dimension]


@compiled
def _solve_among_entries(entries: Floats, targets: Floats, inverses: Floats, weighed: Floats, solution: Floats) -> None:
    """Fill in x = D^-1 E'y with (I + E D^-1 E') y = t, in as many unknowns as there are entries."""
    for entry in range(targets.size):
        for dimension in range(inverses.size):
            weighed[entry, dimension] = entries[entry, dimension] * inverses[dimension]
    matrix, unknowns = _products(weighed, entries), targets.copy()
    for entry in range(targets.size):
        matrix[entry, entry] += np.float32(1.0)
    _substitute(_lower_factor(matrix), unknowns)
    _add_multiples(weighed, unknowns, solution)


@compiled
def _products(left: Floats, right: Floats) -> Floats:
    """LR', of which only the lower half need be right."""
    if left.shape[0] >= BLAS_ROWS:
        products: Floats = np.dot(left, right.T)
        return products
    products = np.empty((left.shape[0], left.shape[0]), np.float32)
    for row in range(left.shape[0]):
        for column in range(row + 1):
            products[row, column] = np.float32(dot(left[row], right[column]))
    return products


@compiled
def _lower_factor(matrix: Floats) -> Floats:
    """L with LL' = matrix, positive definite, in its lower half (Cholesky); small matrices are overwritten."""
    if matrix.shape[0] >= LAPACK_ROWS:
        return np.linalg.cholesky(matrix)
    for row in range(matrix.shape[0]):
        for column in range(row + 1):
            rest = matrix[row, column]
            for place in range(column):
                rest -= matrix[row, place] * matrix[column, place]
            matrix[row, column] = np.sqrt(rest) if row == column else rest / matrix[column, column]
    return matrix


@compiled
def _substitute(lower: Floats, unknowns: Floats) -> None:
    """Solve LL'x = b, given b in `unknowns`."""
    for row in range(unknowns.size):
        known = np.float32(dot(lower[row, :row], unknowns[:row]))
        unknowns[row] = (unknowns[row] - known) / lower[row, row]
    for row in range(unknowns.size - 1, -1, -1):
        unknowns[row] /= lower[row, row]
        rest, factors = unknowns[:row], lower[row, :row]
        for place in range(row):
            rest[place] -= factors[place] * unknowns[row]
