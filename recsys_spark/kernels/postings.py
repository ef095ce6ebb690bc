"""A tile of candidate rows turned around: for each column the rows of the tile that store it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, require_valid_columns
from recsys_spark.kernels.jit import compiled, kernel_input

SCAN_CHUNK = 64
MAX_TILE_ROWS = 1 << 16  # a row of the tile fits uint16


class RowArrays(NamedTuple):
    """`CsrRows` as kernels take it, read-only, with squared norms float64 (rows,)."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    squared_norms: NDArray[np.float64]


class Tile(NamedTuple):
    """Postings of the candidate rows from `first_row` on, as many as `by_norm` has.

    Column c is stored by the tile's rows `local_rows[starts[c]:starts[c + 1]]`, ascending, with `values`.
    `squared_norms` is padded with inf to whole scan chunks; `by_norm` lists the rows by ascending norm.
    """

    first_row: int
    starts: NDArray[np.uint32]
    local_rows: NDArray[np.uint16]
    values: NDArray[np.float32]
    squared_norms: NDArray[np.float64]
    by_norm: NDArray[np.uint16]


def row_arrays(rows: CsrRows, role: str) -> RowArrays:
    """Prepare rows for a kernel; raises ValueError for a row with invalid columns or a value not finite."""
    require_valid_columns(rows, role)
    squared_norms = rows.squared_norms
    is_bad = ~np.isfinite(squared_norms)
    if is_bad.any():
        raise ValueError(f"{role} row {int(np.argmax(is_bad))} has a value that is not finite")
    return RowArrays(
        kernel_input(rows.indptr, np.int64),
        kernel_input(rows.indices, np.int32),
        kernel_input(rows.values, np.float32),
        kernel_input(squared_norms, np.float64),
    )


def build_tile(rows: RowArrays, n_columns: int, start: int, stop: int) -> Tile:
    """Build the postings of rows `start` to `stop` (excluded), or to the last row."""
    norms = rows.squared_norms[start:stop]
    padded_norms = np.full(-(-norms.size // SCAN_CHUNK) * SCAN_CHUNK, np.inf)
    padded_norms[: norms.size] = norms
    starts, local_rows, values = _transposed(rows.indptr[start : stop + 1], rows.indices, rows.values, n_columns)
    by_norm = np.argsort(norms, kind="stable").astype(np.uint16)
    return Tile(start, starts, local_rows, values, padded_norms, by_norm)


@compiled
def _transposed(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float32], n_columns: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.float32]]:
    nnz = indptr[-1] - indptr[0]
    ends = np.zeros(n_columns + 1, np.int64)
    for entry in range(indptr[0], indptr[-1]):
        ends[indices[entry] + 1] += 1
    for column in range(n_columns):
        ends[column + 1] += ends[column]
    starts = ends.copy()
    local_rows = np.empty(nnz, np.uint16)
    column_values = np.empty(nnz, np.float32)
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            slot = ends[indices[entry]]
            local_rows[slot] = row
            column_values[slot] = values[entry]
            ends[indices[entry]] = slot + 1
    # Unsigned, because a signed loop costs the accumulation a third more: it checks for negative positions.
    return starts.astype(np.uint32), local_rows, column_values
