"""A tile of candidate rows turned around: for each column the rows of the tile that store it, or the whole column."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, require_valid_columns
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import WIDTH, aligned

HEAD_SHARE = 0.06  # of a tile's rows: from there on a whole column is faster than its postings
HEAD_BYTES = 8 << 20
MAX_TILE_ROWS = 1 << 16  # a row of the tile fits uint16


class RowArrays(NamedTuple):
    """`CsrRows` as kernels take it, read-only, with squared norms float64 (rows,)."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    squared_norms: NDArray[np.float64]


class Tile(NamedTuple):
    """Candidate rows from `first_row` on, as many as `by_norm` has, by column.

    Columns that many of the tile's rows store are its head: h of them, whole, in `head` (groups of WIDTH rows, h,
    WIDTH), zeros where a row does not store them. `head_of`, (columns,), is the place of a column in the head, -1 for
    none; it is empty when there is no head. Any other column c is stored by the tile's rows
    `local_rows[starts[c]:starts[c + 1]]`, ascending, with `values`. `squared_norms` is padded with inf to whole
    groups; `by_norm` lists the rows by ascending norm. Values are multiplied by `scale`, and `half_norms` are half the
    squared norms of the multiplied rows, padded too.
    """

    first_row: int
    starts: NDArray[np.uint32]
    local_rows: NDArray[np.uint16]
    values: NDArray[np.float32]
    squared_norms: NDArray[np.float64]
    by_norm: NDArray[np.uint16]
    head_of: NDArray[np.int32]
    head: NDArray[np.float32]
    half_norms: NDArray[np.float32]
    scale: float


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


def head_room() -> NDArray[np.float32]:
    """Give room for the head of a tile; pages that are not used are not there."""
    return aligned((HEAD_BYTES // 4,))


def build_tile(rows: RowArrays, n_columns: int, start: int, stop: int, scale: float, room: NDArray[np.float32]) -> Tile:
    """Build the tile of rows `start` to `stop` (excluded), or to the last row; `scale` is a power of two.

    `room` is `head_room()`, which the tile's head lies in: the next tile may take it.
    """
    norms = rows.squared_norms[start:stop]
    n_groups = -(-norms.size // WIDTH)
    padded_norms = np.full(n_groups * WIDTH, np.inf)
    padded_norms[: norms.size] = norms
    indptr = rows.indptr[start : stop + 1]
    counts = _column_counts(indptr, rows.indices, n_columns)
    head_of, n_head = _choose_head(counts, norms.size)
    head = room[: n_groups * n_head * WIDTH].reshape(n_groups, n_head, WIDTH)
    head[:] = 0.0
    starts, local_rows, values = _transposed(indptr, rows.indices, rows.values, scale, counts, head_of, head)
    by_norm = np.argsort(norms, kind="stable").astype(np.uint16)
    half_norms = (padded_norms * (scale * scale / 2.0)).astype(np.float32)
    return Tile(start, starts, local_rows, values, padded_norms, by_norm, head_of, head, half_norms, scale)


@compiled
def _column_counts(indptr: NDArray[np.int64], indices: NDArray[np.int32], n_columns: int) -> NDArray[np.int64]:
    counts = np.zeros(n_columns, np.int64)
    for entry in range(indptr[0], indptr[-1]):
        counts[indices[entry]] += 1
    return counts


def _choose_head(counts: NDArray[np.int64], n_rows: int) -> tuple[NDArray[np.int32], int]:
    """The place of each column in the head, and the size of the head: the most frequent columns, if they are dense."""
    most = HEAD_BYTES // (4 * -(-n_rows // WIDTH) * WIDTH)
    columns = np.flatnonzero(counts >= max(HEAD_SHARE * n_rows, 2))
    if columns.size > most:
        columns = np.sort(columns[np.argsort(-counts[columns], kind="stable")[:most]])
    if columns.size == 0:
        return np.empty(0, np.int32), 0
    head_of = np.full(counts.size, -1, np.int32)
    head_of[columns] = np.arange(columns.size, dtype=np.int32)
    return head_of, columns.size


@compiled
def _transposed(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    counts: NDArray[np.int64],
    head_of: NDArray[np.int32],
    head: NDArray[np.float32],
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.float32]]:
    """Fill the head and give the postings of the other columns."""
    n_columns, has_head = counts.size, head.shape[1] > 0
    ends = np.zeros(n_columns + 1, np.int64)
    for column in range(n_columns):
        is_in_head = has_head and head_of[column] >= 0
        ends[column + 1] = ends[column] + (0 if is_in_head else counts[column])
    starts = ends.copy()
    local_rows = np.empty(ends[-1], np.uint16)
    column_values = np.empty(ends[-1], np.float32)
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            column, value = indices[entry], np.float32(values[entry] * scale)
            if has_head and head_of[column] >= 0:
                head[row // WIDTH, head_of[column], row % WIDTH] = value
                continue
            slot = ends[column]
            local_rows[slot] = row
            column_values[slot] = value
            ends[column] = slot + 1
    # Unsigned, because a signed loop costs the accumulation a third more: it checks for negative positions.
    return starts.astype(np.uint32), local_rows, column_values
