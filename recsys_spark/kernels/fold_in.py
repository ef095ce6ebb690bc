"""Vectors of users from their rows alone, given those of the items: also of users that training never saw."""

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, IndexLists, rows_of_ones
from recsys_spark.kernels.least_squares import FixedSide, WholeDataLoss, solve_rows
from recsys_spark.kernels.pooling import pool_rows
from recsys_spark.kernels.similarity import embed_behavior

Floats = NDArray[np.float32]


def places_of(is_fixed: NDArray[np.bool_]) -> NDArray[np.int32]:
    """For each column of a matrix which row of the chosen ones is its own, -1 for none, (columns,)."""
    places = np.full(len(is_fixed), -1, np.int32)
    places[is_fixed] = np.arange(np.count_nonzero(is_fixed), dtype=np.int32)
    return places


def rows_among(rows: CsrRows, places: NDArray[np.int32], n_places: int, least_entries: int) -> CsrRows:
    """The entries whose column has a place, by place, all 1; rows with fewer than `least_entries` get none."""
    known = rows.select(places[rows.indices] >= 0)
    lengths = np.diff(known.indptr)
    known = known.select(np.repeat(lengths >= least_entries, lengths))
    columns = np.ascontiguousarray(places[known.indices])
    return rows_of_ones(IndexLists(known.indptr, columns), n_places)


def fold_in_rows(
    rows: CsrRows,
    places: NDArray[np.int32],
    fixed: FixedSide,
    loss: WholeDataLoss,
    least_entries: int,
    threads: int = 1,
) -> tuple[Floats, NDArray[np.bool_]]:
    """The vector of each row, (rows, d), from its entries that have a vector, and whether there are enough, (rows,).

    Every entry counts as 1, whatever its value; rows with fewer than `least_entries` get zeros.
    """
    known = rows_among(rows, places, len(fixed.turned), least_entries)
    if known.nnz == 0:
        return np.zeros((rows.n_rows, len(fixed.diagonal)), np.float32), np.zeros(rows.n_rows, bool)
    vectors, _ = solve_rows(known, fixed, loss.unobserved_weight, loss.penalties(known), threads)
    return vectors, np.diff(known.indptr) > 0


def pool_known(
    rows: CsrRows, places: NDArray[np.int32], vectors: Floats, is_unit: bool, least_entries: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """The pooled vector of each row, (rows, d), of length one if wanted, and whether there are enough entries, (rows,).

    Of the entries that have a vector: `places`, (columns,), says which. Rows with fewer than `least_entries` get zeros.
    """
    known = rows_among(rows, places, len(vectors), least_entries)
    pooled = embed_behavior(known, vectors) if is_unit else pool_rows(known, vectors)
    return pooled, np.diff(known.indptr) > 0
