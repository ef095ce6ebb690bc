"""A tile of candidate rows turned around: for each column the rows of the tile that store it, or the whole column."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, require_valid_columns
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import WIDTH, aligned, from_half_bits, half_bits

HEAD_SHARE = 0.03  # of the rows: from there on a whole column is faster than its postings
HEAD_BYTES = 8 << 20
HALF_BYTES = 2
BELOW_NORMAL_16 = 2.0**-25  # what rounding to float16 takes at most where its normal range ends
MAX_TILE_ROWS = 1 << 16  # a row of the tile fits uint16


class RowArrays(NamedTuple):
    """`CsrRows` as kernels take it, read-only, with squared norms float64 (rows,)."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    squared_norms: NDArray[np.float64]


class Head(NamedTuple):
    """The columns that many candidates store: the place of each column among them, -1 for the others, (columns,).

    `error` bounds what float16 takes from a candidate, in terms of its norm, apart from 2^-25 an entry, scaled.
    """

    places: NDArray[np.int32]
    size: int
    error: float


class Tile(NamedTuple):
    """Candidate rows from `first_row` on, as many as `by_norm` has, by column.

    The h columns of the head lie whole in `whole_columns` (groups of WIDTH rows, h, WIDTH), bits of float16, zeros
    where a row does not store them; `head_of`, (columns,), is the place of a column there, -1 for none. Any other
    column c is stored by the tile's rows `local_rows[starts[c]:starts[c + 1]]`, ascending, with `values`.
    `squared_norms` is padded with inf to whole groups; `by_norm` lists the rows by ascending norm. Values are
    multiplied by `scale`, and `first_scores` are minus half the squared norms of the multiplied rows, padded too.
    """

    first_row: int
    starts: NDArray[np.uint32]
    local_rows: NDArray[np.uint16]
    values: NDArray[np.float32]
    squared_norms: NDArray[np.float64]
    by_norm: NDArray[np.uint16]
    head_of: NDArray[np.int32]
    whole_columns: NDArray[np.uint16]
    first_scores: NDArray[np.float32]
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


def choose_head(rows: RowArrays, n_columns: int, tile_rows: int, scale: float) -> Head:
    """Choose the most frequent columns, as many as are dense enough and fit `HEAD_BYTES` for a tile."""
    n_rows = rows.squared_norms.size
    counts = _column_counts(rows.indptr, rows.indices, n_columns)
    most = HEAD_BYTES // (HALF_BYTES * _n_groups(max(min(tile_rows, n_rows), 1)) * WIDTH)
    columns = np.flatnonzero(counts >= max(HEAD_SHARE * n_rows, 2))
    if columns.size > most:
        columns = np.sort(columns[np.argsort(-counts[columns], kind="stable")[:most]])
    places = np.full(n_columns, -1, np.int32)
    places[columns] = np.arange(columns.size, dtype=np.int32)
    return Head(places, columns.size, _largest_error(rows, places, scale) if columns.size else 0.0)


@compiled
def _largest_error(rows: RowArrays, places: NDArray[np.int32], scale: float) -> float:
    indptr, indices, values, largest = rows.indptr, rows.indices, rows.values, 0.0
    for row in range(indptr.size - 1):
        squares = 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            if places[indices[entry]] >= 0:
                value = np.float32(values[entry] * scale)
                error = np.float64(value) - np.float64(from_half_bits(half_bits(value)))
                squares += error * error
        below_normal = np.sqrt(np.float64(indptr[row + 1] - indptr[row])) * BELOW_NORMAL_16
        beyond = np.sqrt(squares) - below_normal
        if beyond > 0.0:
            largest = max(largest, beyond / (np.sqrt(rows.squared_norms[row]) * scale))
    return largest


def head_room(head: Head, tile_rows: int) -> NDArray[np.uint16]:
    """Give room for the head of a tile."""
    n_values = _n_groups(tile_rows) * head.size * WIDTH
    return aligned((n_values * HALF_BYTES // 4,)).view(np.uint16)


def build_tile(rows: RowArrays, head: Head, start: int, stop: int, scale: float, room: NDArray[np.uint16]) -> Tile:
    """Build the tile of rows `start` to `stop` (excluded), or to the last row; `scale` is a power of two.

    `room` is `head_room` for as many rows, which the tile's head lies in: the next tile may take it.
    """
    norms = rows.squared_norms[start:stop]
    n_groups = _n_groups(norms.size)
    padded_norms = np.full(n_groups * WIDTH, np.inf)
    padded_norms[: norms.size] = norms
    indptr = rows.indptr[start : stop + 1]
    whole = room[: n_groups * head.size * WIDTH].reshape(n_groups, head.size, WIDTH)
    whole[:] = 0
    starts, local_rows, values = _transposed(indptr, rows.indices, rows.values, scale, head, whole)
    by_norm = np.argsort(norms, kind="stable").astype(np.uint16)
    first_scores = (padded_norms * (-scale * scale / 2.0)).astype(np.float32)
    return Tile(start, starts, local_rows, values, padded_norms, by_norm, head.places, whole, first_scores, scale)


def _n_groups(n_rows: int) -> int:
    return -(-n_rows // WIDTH)


@compiled
def _column_counts(indptr: NDArray[np.int64], indices: NDArray[np.int32], n_columns: int) -> NDArray[np.int64]:
    counts = np.zeros(n_columns, np.int64)
    for entry in range(indptr[0], indptr[-1]):
        counts[indices[entry]] += 1
    return counts


@compiled
def _transposed(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    scale: float,
    head: Head,
    whole: NDArray[np.uint16],
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.float32]]:
    """Fill the whole columns of the head and give the postings of the others."""
    places = head.places
    counts = _column_counts(indptr, indices, places.size)
    ends = np.zeros(places.size + 1, np.int64)
    for column in range(places.size):
        ends[column + 1] = ends[column] + (0 if places[column] >= 0 else counts[column])
    starts = ends.copy()
    local_rows = np.empty(ends[-1], np.uint16)
    column_values = np.empty(ends[-1], np.float32)
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            column, value = indices[entry], np.float32(values[entry] * scale)
            if places[column] >= 0:
                whole[row // WIDTH, places[column], row % WIDTH] = half_bits(value)
                continue
            slot = ends[column]
            local_rows[slot] = row
            column_values[slot] = value
            ends[column] = slot + 1
    # Unsigned, because a signed loop costs the accumulation a third more: it checks for negative positions.
    return starts.astype(np.uint32), local_rows, column_values
