"""All users' behavior rows as mapped CSR files: the candidates of neighbors and of scoring by neighbors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.blocks import read_blocks, training_rows
from recsys_spark.blockwise.files import MappedArray, distribute_array, save_array
from recsys_spark.blockwise.plan import Block
from recsys_spark.kernels.csr import IDF_WEIGHTINGS, CsrRows, Weighting, column_range, column_weights, weigh_rows

_ENTRY_BYTES = 8  # an int32 column and a float32 value
ROW_COLUMNS = ("first_user_idx", "indptr", "indices", "ratings", "splits")
"""The columns of a block that make its users' rows."""


@dataclass(frozen=True)
class RowShard:
    """Consecutive users' rows in three mapped files."""

    first_user: int
    indptr: MappedArray
    indices: MappedArray
    values: MappedArray

    def load(self, n_columns: int) -> CsrRows:
        """Map the rows."""
        return CsrRows(self.indptr.load(), self.indices.load(), self.values.load(), n_columns)


@dataclass(frozen=True)
class RowWeights:
    """How rows are weighed; the same for queries and candidates, so that a row has the same bits in both."""

    weighting: Weighting
    column_weights: MappedArray | None = None
    mean_row_length: float | None = None

    def weigh(self, rows: CsrRows) -> CsrRows:
        """The weighed rows."""
        columns = None if self.column_weights is None else self.column_weights.load()
        return weigh_rows(rows, self.weighting, columns, self.mean_row_length)


@dataclass(frozen=True)
class UserRows:
    """All users' rows, distributed: `n_users` x `n_items` in shards of consecutive users."""

    shards: tuple[RowShard, ...]
    weights: RowWeights
    n_users: int
    n_items: int
    hold_out: bool

    def of(self, block: Block) -> CsrRows:
        """The weighed rows of a block of `user_blocks`, as queries."""
        return self.weights.weigh(training_rows(block, self.n_items, self.hold_out))


@dataclass(frozen=True)
class ItemRange:
    """All users' rows, of `n_items` consecutive items only."""

    first_item: int
    n_items: int
    rows: RowShard

    def load(self) -> CsrRows:
        """Map the rows; column 0 is the first item."""
        return self.rows.load(self.n_items)


@dataclass(frozen=True)
class RowSource:
    """Where the rows come from: the local folder of `user_blocks` and the size of the matrix.

    `items` is the range wanted of them, all when None.
    """

    folder: Path
    n_users: int
    n_items: int
    hold_out: bool
    items: tuple[int, int] | None = None

    def blocks(self) -> Iterator[tuple[int, CsrRows]]:
        """First user and unweighed rows of each block, in no particular order."""
        start, stop = self.items or (0, self.n_items)
        for block in read_blocks(self.folder, ROW_COLUMNS):
            rows = training_rows(block, self.n_items, self.hold_out)
            yield block.column("first_user_idx")[0].as_py(), column_range(rows, start, stop)


def distribute_user_rows(
    spark: SparkSession, source: RowSource, weighting: Weighting, scratch: Path, shard_bytes: int
) -> UserRows:
    """Write all rows, weighed, into shards on the driver's disk and hand them to the executors.

    Driver memory: one block and 16 bytes a user; disk on the driver and on each host: 8 bytes an
    interaction and 8 a user. A shard holds whole blocks, so it passes `shard_bytes` by at most one.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    lengths, document_frequency, first_users = _measure(source)
    weights = _row_weights(spark, source, weighting, lengths, document_frequency, scratch)
    shards = [
        _write_shard(spark, source, weights, lengths, bounds, scratch / f"rows-{number}")
        for number, bounds in enumerate(_shard_bounds(lengths, first_users, shard_bytes))
    ]
    return UserRows(tuple(shards), weights, source.n_users, source.n_items, source.hold_out)


def distribute_item_ranges(
    spark: SparkSession, source: RowSource, scratch: Path, shard_bytes: int
) -> tuple[ItemRange, ...]:
    """Write all rows, as they are, into shards of consecutive items and hand them to the executors.

    The neighbors of a user lie anywhere, but the items of a shard need only their own columns of the neighbors' rows.
    Memory and disk are those of `distribute_user_rows`, with 8 bytes a user for each shard.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    _, frequency, _ = _measure(source)
    ranges = []
    for start, stop in _item_bounds(frequency, shard_bytes):
        part = replace(source, items=(start, stop))
        lengths, _, _ = _measure(part)
        folder = scratch / f"items-{start}"
        shard = _write_shard(spark, part, RowWeights("none"), lengths, (0, source.n_users), folder)
        ranges.append(ItemRange(start, stop - start, shard))
    return tuple(ranges)


def _item_bounds(frequency: NDArray[np.int64], shard_bytes: int) -> list[tuple[int, int]]:
    """Item ranges, each closed by the item that fills it; at least one."""
    bounds, start, held = [], 0, 0
    for item, count in enumerate(frequency.tolist()):
        held += count * _ENTRY_BYTES
        if held >= shard_bytes:
            bounds.append((start, item + 1))
            start, held = item + 1, 0
    if start < len(frequency) or not bounds:
        bounds.append((start, len(frequency)))
    return bounds


def _measure(source: RowSource) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    lengths, frequency = np.zeros(source.n_users, np.int64), np.zeros(source.n_items, np.int64)
    first_users = []
    for first, rows in source.blocks():
        lengths[first : first + rows.n_rows] = np.diff(rows.indptr)
        frequency += np.bincount(rows.indices, minlength=source.n_items)
        first_users.append(first)
    return lengths, frequency, sorted(first_users)


def _row_weights(
    spark: SparkSession,
    source: RowSource,
    weighting: Weighting,
    lengths: NDArray[np.int64],
    document_frequency: NDArray[np.int64],
    scratch: Path,
) -> RowWeights:
    if weighting not in IDF_WEIGHTINGS:
        return RowWeights(weighting)
    weights = column_weights(document_frequency, source.n_users, weighting)
    file = distribute_array(spark, save_array(scratch / "column_weights.npy", weights))
    return RowWeights(weighting, file, max(float(lengths.mean()), 1.0))


def _shard_bounds(lengths: NDArray[np.int64], first_users: list[int], shard_bytes: int) -> list[tuple[int, int]]:
    """User ranges of whole blocks, each closed by the block that fills it."""
    ends = [*first_users[1:], len(lengths)]
    bounds, start, held = [], 0, 0
    for first, end in zip(first_users, ends, strict=True):
        held += int(lengths[first:end].sum()) * _ENTRY_BYTES
        if held >= shard_bytes or end == len(lengths):
            bounds.append((start, end))
            start, held = end, 0
    return bounds


def _write_shard(
    spark: SparkSession,
    source: RowSource,
    weights: RowWeights,
    lengths: NDArray[np.int64],
    bounds: tuple[int, int],
    folder: Path,
) -> RowShard:
    start, end = bounds
    folder.mkdir(parents=True, exist_ok=True)
    indptr = np.concatenate([[0], np.cumsum(lengths[start:end])]).astype(np.int64)
    paths = {"indices": folder / "indices.npy", "values": folder / "values.npy"}
    indices = _open_array(paths["indices"], np.int32, int(indptr[-1]))
    values = _open_array(paths["values"], np.float32, int(indptr[-1]))
    for first, rows in source.blocks():
        if start <= first < end:
            place = slice(indptr[first - start], indptr[first - start + rows.n_rows])
            weighed = weights.weigh(rows)
            indices[place], values[place] = weighed.indices, weighed.values
    _close_array(paths["indices"], indices)
    _close_array(paths["values"], values)
    return RowShard(
        start,
        distribute_array(spark, save_array(folder / "indptr.npy", indptr)),
        distribute_array(spark, paths["indices"]),
        distribute_array(spark, paths["values"]),
    )


def _open_array(path: Path, dtype: Any, size: int) -> NDArray[Any]:
    if size == 0:  # nothing to map
        return np.zeros(0, dtype)
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))
    return array


def _close_array(path: Path, array: NDArray[Any]) -> None:
    if isinstance(array, np.memmap):
        array.flush()
    else:
        save_array(path, array)
