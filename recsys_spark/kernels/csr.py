"""Sparse rows: the user-item matrix as CSR arrays, how it is built and how its values are weighted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import dot

Weighting = Literal["none", "l2", "center", "tfidf", "bm25"]
IDF_WEIGHTINGS: frozenset[Weighting] = frozenset({"tfidf", "bm25"})

BM25_K1 = 1.2
BM25_B = 0.75


@dataclass(frozen=True)
class IndexLists:
    """One list of positions a row: row r holds `indices[indptr[r]:indptr[r + 1]]`.

    `indptr` is int64 (rows + 1,) from 0 to the number of positions; `indices` is any integer type.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]

    def __post_init__(self) -> None:
        if self.indptr.dtype != np.int64 or self.indptr.ndim != 1 or self.indptr.size == 0:
            raise ValueError(f"indptr must be int64 (rows + 1,), got {self.indptr.dtype} {self.indptr.shape}")
        if self.indptr[0] != 0 or self.indptr[-1] != self.indices.size:
            raise ValueError(
                f"indptr must run from 0 to {self.indices.size}, got {self.indptr[0]} to {self.indptr[-1]}"
            )
        if (self.indptr[1:] < self.indptr[:-1]).any():
            raise ValueError(f"indptr decreases at row {int(np.argmax(self.indptr[1:] < self.indptr[:-1]))}")

    @property
    def n_rows(self) -> int:
        """Number of lists."""
        return self.indptr.size - 1

    def select(self, mask: NDArray[np.bool_]) -> "IndexLists":
        """Keep the positions where `mask`, (positions,), is true; rows keep their places."""
        kept_before = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
        return IndexLists(kept_before[self.indptr], self.indices[mask])

    def slice_rows(self, start: int, stop: int) -> "IndexLists":
        """Give rows `start` to `stop` (excluded); the positions are a view, not a copy."""
        first, last = self._bounds(start, stop)
        return IndexLists(self.indptr[start : stop + 1] - first, self.indices[first:last])

    def entries_of(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """The places of the entries of some rows, row after row, (entries,)."""
        lengths = self.indptr[np.add(rows, 1)] - self.indptr[rows]
        before = np.cumsum(lengths) - lengths
        entries: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(self.indptr[rows] - before, lengths)
        return entries

    def take_rows(self, rows: NDArray[Any]) -> "IndexLists":
        """Give some rows, in that order; copies."""
        lengths = self.indptr[np.add(rows, 1)] - self.indptr[rows]
        return IndexLists(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), self.indices[self.entries_of(rows)]
        )

    def _bounds(self, start: int, stop: int) -> tuple[int, int]:
        if not 0 <= start <= stop <= self.n_rows:
            raise ValueError(f"rows {start} to {stop} are not within 0 to {self.n_rows}")
        return int(self.indptr[start]), int(self.indptr[stop])


@dataclass(frozen=True)
class CsrRows(IndexLists):
    """Rows of a sparse matrix: `indices` are int32 columns, ascending in each row; `values` float32 (nnz,).

    The arrays may be memory-mapped. Stored zeros count as stored.
    """

    values: NDArray[np.float32]
    n_columns: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.indices.dtype != np.int32 or self.values.dtype != np.float32:
            raise ValueError(
                f"indices and values must be int32 and float32, got {self.indices.dtype}, {self.values.dtype}"
            )
        if self.values.size != self.indices.size:
            raise ValueError(f"{self.indices.size} indices but {self.values.size} values")

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.indices.size

    @property
    def squared_norms(self) -> NDArray[np.float64]:
        """Sum of squared values of each row, (rows,), in the order of `simd.dot` by ascending column."""
        norms: NDArray[np.float64] = _squared_norms(
            kernel_input(self.indptr, np.int64), kernel_input(self.values, np.float32)
        )
        return norms

    def select(self, mask: NDArray[np.bool_]) -> "CsrRows":
        """Keep the entries where `mask`, (nnz,), is true; rows keep their positions."""
        lists = super().select(mask)
        return CsrRows(lists.indptr, lists.indices, self.values[mask], self.n_columns)

    def slice_rows(self, start: int, stop: int) -> "CsrRows":
        """Give rows `start` to `stop` (excluded); indices and values are views, not copies."""
        first, last = self._bounds(start, stop)
        return CsrRows(
            self.indptr[start : stop + 1] - first,
            self.indices[first:last],
            self.values[first:last],
            self.n_columns,
        )

    def take_rows(self, rows: NDArray[Any]) -> "CsrRows":
        """Give some rows, in that order; copies."""
        lists = super().take_rows(rows)
        return CsrRows(lists.indptr, lists.indices, self.values[self.entries_of(rows)], self.n_columns)


def column_range(rows: CsrRows, start: int, stop: int) -> CsrRows:
    """Columns `start` to `stop` (excluded) of the rows; column `start` becomes column 0."""
    if not 0 <= start <= stop <= rows.n_columns:
        raise ValueError(f"columns {start} to {stop} are not within 0 to {rows.n_columns}")
    if stop - start == rows.n_columns:
        return rows
    kept = rows.select((rows.indices >= start) & (rows.indices < stop))
    return CsrRows(kept.indptr, kept.indices - np.int32(start), kept.values, stop - start)


def joined_rows(parts: Sequence[CsrRows]) -> CsrRows:
    """The rows of several matrices of the same columns, one after the other; at least one matrix."""
    if len({part.n_columns for part in parts}) != 1:
        raise ValueError(f"rows to join must have the same columns, got {[part.n_columns for part in parts]}")
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices, values = (np.concatenate(arrays) for arrays in zip(*((p.indices, p.values) for p in parts), strict=True))
    return CsrRows(indptr, indices, values, parts[0].n_columns)


def rows_of_ones(lists: IndexLists, n_columns: int) -> CsrRows:
    """Rows whose stored values are all 1, which take no memory: a view of a single one. Columns are int32."""
    return CsrRows(lists.indptr, lists.indices, np.broadcast_to(np.float32(1), lists.indices.shape), n_columns)


def transpose_lists(lists: IndexLists, n_columns: int, transposed: NDArray[np.int32] | None = None) -> IndexLists:
    """For each of the columns its rows, ascending, int32; into `transposed`, (positions,), when given.

    Memory: 4 bytes a position, 16 a column.
    """
    indices = kernel_input(lists.indices, np.int32)
    indptr = np.zeros(n_columns + 1, np.int64)
    rows = np.empty(indices.size, np.int32) if transposed is None else transposed
    _transpose(kernel_input(lists.indptr, np.int64), indices, indptr, rows)
    return IndexLists(indptr, rows)


@compiled
def _transpose(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], starts: NDArray[np.int64], rows: NDArray[np.int32]
) -> None:
    for entry in range(indices.size):
        starts[indices[entry] + 1] += 1
    for column in range(starts.size - 1):
        starts[column + 1] += starts[column]
    places = starts[:-1].copy()
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            rows[places[indices[entry]]] = row
            places[indices[entry]] += 1


def require_valid_columns(rows: CsrRows, role: str) -> None:
    """Raise ValueError naming the first row whose columns are not ascending within 0 to `n_columns`.

    Kernels write where the columns say, unchecked, so those that read rows from files call this first.
    """
    row = _first_invalid_row(kernel_input(rows.indptr, np.int64), kernel_input(rows.indices, np.int32), rows.n_columns)
    if row >= 0:
        raise ValueError(f"{role} row {row} has columns that are not ascending within 0 to {rows.n_columns}")


@compiled
def _first_invalid_row(indptr: NDArray[np.int64], indices: NDArray[np.int32], n_columns: int) -> int:
    for row in range(indptr.size - 1):
        last = -1
        for entry in range(indptr[row], indptr[row + 1]):
            if indices[entry] <= last or indices[entry] >= n_columns:
                return row
            last = indices[entry]
    return -1


@compiled
def _squared_norms(indptr: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.empty(indptr.size - 1)
    for row in range(norms.size):
        stored = values[indptr[row] : indptr[row + 1]]
        norms[row] = dot(stored, stored)
    return norms


@compiled
def _sums_of_squares(indptr: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
    sums = np.zeros(indptr.size - 1)
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            sums[row] += np.float64(values[entry]) * np.float64(values[entry])
    return sums


@compiled
def _sums(indptr: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
    sums = np.zeros(indptr.size - 1)
    for row in range(indptr.size - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            sums[row] += np.float64(values[entry])
    return sums


def csr_from_pairs(
    rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], n_rows: int, n_columns: int
) -> CsrRows:
    """Build rows from (row, column, value) triples in any order; arrays are (nnz,).

    Raises ValueError naming the first pair that is out of range, not finite in float32, or given twice.
    """
    if not rows.size == columns.size == values.size:
        raise ValueError(f"{rows.size} rows, {columns.size} columns and {values.size} values do not match")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf and is refused below
        values = values.astype(np.float32)
    is_outside = (rows < 0) | (rows >= n_rows) | (columns < 0) | (columns >= n_columns)
    _refuse(is_outside, rows, columns, f"is outside {n_rows} rows x {n_columns} columns")
    _refuse(~np.isfinite(values), rows, columns, "has a value that is not a finite float32")
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    is_repeated = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    _refuse(is_repeated, rows[1:], columns[1:], "is given more than once")
    indptr = np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)
    return CsrRows(indptr, columns.astype(np.int32), values[order], n_columns)


def _refuse(is_bad: NDArray[np.bool_], rows: NDArray[Any], columns: NDArray[Any], complaint: str) -> None:
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise ValueError(f"pair (row {rows[first]}, column {columns[first]}) {complaint}")


def column_weights(document_frequency: NDArray[Any], n_rows: int, weighting: Weighting) -> NDArray[np.float32]:
    """Inverse document frequency of each column, (n_columns,), from the number of rows that store it.

    "tfidf": ln((1 + n) / (1 + df)) + 1, as scikit-learn's `TfidfTransformer(smooth_idf=True)`.
    "bm25": ln(1 + (n - df + 0.5) / (df + 0.5)), as Lucene's `BM25Similarity`; never negative.
    Raises ValueError for a weighting without column weights or a frequency outside 0 to `n_rows`.
    """
    frequency = np.asarray(document_frequency, np.float64)
    is_outside = ~((frequency >= 0) & (frequency <= n_rows))
    if is_outside.any():
        column = int(np.argmax(is_outside))
        raise ValueError(f"column {column} is in {frequency[column]:g} rows, not within 0 to {n_rows}")
    if weighting == "tfidf":
        return (np.log((1 + n_rows) / (1 + frequency)) + 1).astype(np.float32)
    if weighting == "bm25":
        return np.log1p((n_rows - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    raise ValueError(f"weighting {weighting!r} has no column weights, only {sorted(IDF_WEIGHTINGS)} have")


def weigh_rows(
    rows: CsrRows,
    weighting: Weighting,
    column_weights: NDArray[np.float32] | None = None,
    mean_row_length: float | None = None,
) -> CsrRows:
    """Weigh the stored values of each row; the pattern stays the same, so stored zeros stay stored.

    "l2" divides a row by its norm: Euclidean order becomes cosine order. "center" subtracts the mean of the
    row's stored values. "tfidf" multiplies by `column_weights`, then "l2". "bm25" saturates values >= 0 with
    k1 = 1.2, b = 0.75 (Robertson and Zaragoza 2009); a row's length is its number of stored entries.
    A row's bits depend on that row, `column_weights` (n_columns,) and `mean_row_length` only: sums are
    float64 by ascending column, the rest is elementwise float64, rounded to float32 at the end.
    Raises ValueError for missing weights or length, bm25 of a negative value, or a result beyond float32.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting must be one of {get_args(Weighting)}, got {weighting!r}")
    if weighting == "none":
        return rows
    values = rows.values.astype(np.float64)
    if weighting in IDF_WEIGHTINGS:
        values = _saturated(rows, values, mean_row_length) if weighting == "bm25" else values
        values *= _weights_of_entries(rows, column_weights, weighting)
    if weighting in ("l2", "tfidf"):
        norms = np.sqrt(_sums_of_squares(kernel_input(rows.indptr, np.int64), kernel_input(values, np.float64)))
        values /= np.repeat(np.where(norms > 0, norms, 1.0), _lengths(rows))
    if weighting == "center":
        sums = _sums(kernel_input(rows.indptr, np.int64), kernel_input(values, np.float64))
        values -= np.repeat(sums / np.maximum(_lengths(rows), 1), _lengths(rows))
    return CsrRows(rows.indptr, rows.indices, _rounded(rows, values), rows.n_columns)


def _lengths(rows: CsrRows) -> NDArray[np.int64]:
    return np.diff(rows.indptr)


def _weights_of_entries(
    rows: CsrRows, column_weights: NDArray[np.float32] | None, weighting: Weighting
) -> NDArray[np.float64]:
    if column_weights is None or column_weights.shape != (rows.n_columns,):
        shape = None if column_weights is None else column_weights.shape
        raise ValueError(f"{weighting} needs column_weights of shape ({rows.n_columns},), got {shape}")
    weights: NDArray[np.float64] = column_weights.astype(np.float64)[rows.indices]
    return weights


def _saturated(rows: CsrRows, values: NDArray[np.float64], mean_row_length: float | None) -> NDArray[np.float64]:
    if mean_row_length is None or not mean_row_length > 0:
        raise ValueError(f"bm25 needs a mean_row_length above 0, got {mean_row_length}")
    if (values < 0).any():
        raise ValueError(f"bm25 needs values >= 0, but row {_row_of(rows, values < 0)} has a negative one")
    damping = BM25_K1 * (1 - BM25_B + BM25_B * _lengths(rows) / mean_row_length)
    return values * (BM25_K1 + 1) / (values + np.repeat(damping, _lengths(rows)))


def _rounded(rows: CsrRows, values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    is_lost = ~np.isfinite(rounded)
    if is_lost.any():
        raise ValueError(f"row {_row_of(rows, is_lost)} has a weighted value that is not a finite float32")
    return rounded


def _row_of(rows: CsrRows, is_found: NDArray[np.bool_]) -> int:
    return int(np.searchsorted(rows.indptr, int(np.argmax(is_found)), side="right")) - 1
