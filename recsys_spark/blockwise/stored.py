"""Blocks that the tasks read from Parquet files themselves, where driver and executors share the folders.

Spark carries a number a task; what the blocks hold does not pass through the JVM, and no shuffle moves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.blockwise.parts import not_shared
from recsys_spark.blockwise.plan import Batches, task_count


@dataclass(frozen=True)
class StoredTable:
    """Where the blocks of a table lie: `places`, (blocks, 3) by `block_id`, is file, row group, row within it.

    A task reads the row group of a block, so one should hold few blocks.
    """

    columns: frozenset[str]
    files: tuple[str, ...]
    block_ids: NDArray[np.int32]
    places: NDArray[np.int32]

    def read(self, block: int, columns: list[str]) -> pa.Table:
        """One block; the footer of its file is read again each time, so that none stays in memory."""
        file, group, row = self.places[block].tolist()
        try:
            with pq.ParquetFile(self.files[file]) as parquet:
                return parquet.read_row_group(group, columns=columns, use_threads=False).slice(row, 1)
        except FileNotFoundError:
            raise not_shared(self.files[file]) from None


@dataclass(frozen=True)
class StoredBlocks:
    """Block tables in shared folders; made by `stored_blocks`.

    The number of tasks is part of it: executors may come and go before it is read.
    """

    spark: SparkSession
    tables: tuple[StoredTable, ...]
    tasks: int

    def rows(self, columns: Collection[str]) -> DataFrame:
        """A row a task: its number."""
        return self.spark.range(0, self.tasks, 1, self.tasks)

    def reader(self, columns: Collection[str]) -> Callable[[Batches, int], Batches]:
        """Reads the blocks of a task; the places of all travel with it."""
        tables, tasks, wanted = self.tables, self.tasks, sorted(columns)
        n_blocks = len(tables[0].block_ids)

        def read(rows: Batches, size: int) -> Batches:
            for task in itertools.chain.from_iterable(batch.column("id").to_pylist() for batch in rows):
                # In turn: neighboring blocks are alike, because older users come first and have done more.
                blocks = range(task, n_blocks, tasks)
                for position in range(0, len(blocks), size):
                    yield _read_blocks(tables, blocks[position : position + size], wanted)

        return read


def _read_blocks(tables: tuple[StoredTable, ...], blocks: Sequence[int], columns: list[str]) -> pa.RecordBatch:
    found: dict[str, pa.Array] = {}
    for table in tables:
        if names := [name for name in columns if name in table.columns and name not in found]:
            some = pa.concat_tables([table.read(block, names) for block in blocks])
            found |= {name: some.column(name).combine_chunks() for name in names}
    return pa.record_batch(found)


def stored_blocks(spark: SparkSession, folders: Sequence[Path]) -> StoredBlocks:
    """Block tables that hold the same blocks, from folders of Parquet files that driver and executors share.

    Only footers and `block_id` are read here. Memory of the driver and of a task: 16 bytes a block and table.

    Raises:
        ValueError: when a block is in one table and not in another, or twice in one.
    """
    tables = tuple(_find_blocks(folder) for folder in folders)
    for folder, table in zip(folders, tables, strict=True):
        missing = np.setxor1d(table.block_ids, tables[0].block_ids)
        if missing.size:
            raise ValueError(f"block {missing[0]} is not in both of {folders[0]} and {folder}")
    return StoredBlocks(spark, tables, max(1, min(task_count(spark), len(tables[0].block_ids))))


def _find_blocks(folder: Path) -> StoredTable:
    files = sorted(folder.glob("*.parquet"))
    columns: frozenset[str] = frozenset()
    ids, places = [np.zeros(0, np.int32)], [np.zeros((0, 3), np.int32)]
    for number, file in enumerate(files):
        with pq.ParquetFile(file) as parquet:
            columns = frozenset(parquet.schema_arrow.names)
            ids.append(parquet.read(["block_id"], use_threads=False).column(0).to_numpy())
            groups = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        rows = [(number, group, row) for group, n_rows in enumerate(groups) for row in range(n_rows)]
        places.append(np.array(rows, np.int32).reshape(-1, 3))
    block_ids = np.concatenate(ids)
    order = np.argsort(block_ids, kind="stable")
    twice = np.flatnonzero(np.diff(block_ids[order]) == 0)
    if twice.size:
        raise ValueError(f"block {block_ids[order][twice[0]]} is twice in {folder}")
    return StoredTable(columns, tuple(map(str, files)), block_ids[order], np.concatenate(places)[order])
