"""Reads the cells of block tables: binary columns as arrays, without a copy."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_spark.blockwise.plan import Block
from recsys_spark.kernels.csr import CsrRows, IndexLists

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def array_of(block: Block, column: str, dtype: Any) -> NDArray[Any]:
    """A binary cell as an array."""
    return np.frombuffer(block.column(column)[0].as_buffer(), dtype)


def rows_of(block: Block, n_columns: int) -> CsrRows:
    """The interactions of a block of `user_blocks`."""
    return CsrRows(
        array_of(block, "indptr", np.int64),
        array_of(block, "indices", np.int32),
        array_of(block, "ratings", np.float32),
        n_columns,
    )


def training_rows(block: Block, n_columns: int, hold_out: bool) -> CsrRows:
    """The interactions a model may see: all of them, or only the train split when `hold_out`."""
    rows = rows_of(block, n_columns)
    return rows.select(array_of(block, "splits", np.uint8) == TRAIN) if hold_out else rows


def items_in_splits(block: Block, splits: tuple[int, ...]) -> IndexLists:
    """The item positions of each user of a block, in the given splits only."""
    lists = IndexLists(array_of(block, "indptr", np.int64), array_of(block, "indices", np.int32))
    return lists.select(np.isin(array_of(block, "splits", np.uint8), splits))


def single_blocks(some: pa.RecordBatch) -> list[Block]:
    """The rows of a batch of a block table."""
    return [some.slice(position, 1) for position in range(some.num_rows)]


def nothing(n_users: int) -> IndexLists:
    """An empty list for each user."""
    return IndexLists(np.zeros(n_users + 1, np.int64), np.zeros(0, np.int32))


def user_positions(block: Block) -> NDArray[np.int32]:
    """The positions of the users of a block."""
    first = block.column("first_user_idx")[0].as_py()
    n_users = array_of(block, "indptr", np.int64).size - 1
    return np.arange(first, first + n_users, dtype=np.int32)


def read_blocks(folder: Path, columns: Collection[str] | None = None) -> Iterator[Block]:
    """The rows of a block table in a local Parquet folder, one at a time, in the order of the files."""
    names = None if columns is None else list(columns)
    for file in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(batch_size=1, columns=names)


def lists_of(lists: IndexLists, values: pa.Array) -> pa.ListArray:
    """Arrow lists without nulls, one a row, of the given flat values."""
    offsets = pa.array(lists.indptr.astype(np.int32))
    # The name and nullability that Spark expects of an array<... not null>.
    kind = pa.list_(pa.field("element", values.type, nullable=False))
    return pa.ListArray.from_arrays(offsets, values, type=kind)


def binary_cell(array: NDArray[Any]) -> pa.Array:
    """An array as a binary column of one row; `array_of` reads it back."""
    return pa.array([array.tobytes()], pa.binary())
