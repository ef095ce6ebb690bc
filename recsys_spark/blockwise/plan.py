"""The one distributed plan: blocks of queries meet candidates that each worker maps; k a query leave the task.

Candidates reach each executor once, as files, and all its Python workers map them: a Spark broadcast
would be unpickled into one private copy a worker. Memory of a task = its blocks at once + the tiles of the kernel,
whatever the number of users.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol, TypeAlias

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructType
from threadpoolctl import threadpool_limits

from recsys_spark.blockwise.naming import Names, with_names
from recsys_spark.blockwise.parts import WRITTEN, WrittenPart, write_part

Block: TypeAlias = pa.RecordBatch
"""One row of a block table; read its binary cells with `array_of` of `blockwise.blocks`."""

Work: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]
Batches: TypeAlias = Iterator[pa.RecordBatch]

TASKS_A_CORE = 4


class Blocks(Protocol):
    """Block tables joined by `block_id`, a row a block, over enough tasks to keep every core busy until the end."""

    def rows(self, columns: Collection[str]) -> DataFrame:
        """What Spark hands to the tasks, spread over them."""
        ...

    def reader(self, columns: Collection[str]) -> Callable[[Batches, int], Batches]:
        """Makes of the rows of a task its blocks with the columns asked for, up to a number of them together."""
        ...


@dataclass(frozen=True)
class MovedBlocks:
    """Block tables that Spark reads and moves to the tasks."""

    tables: tuple[DataFrame, ...]

    def rows(self, columns: Collection[str]) -> DataFrame:
        """The blocks themselves, each moved once."""
        # An explicit number: adaptive execution would fold small block tables into a single task.
        tables = [_only(table, columns) for table in self.tables]
        if len(tables) == 1:
            return tables[0].repartition(task_count(tables[0].sparkSession))
        return _spread_together(*tables)

    def reader(self, columns: Collection[str]) -> Callable[[Batches, int], Batches]:
        """Takes some at a time."""
        return _slices


@dataclass(frozen=True)
class BlockMap:
    """What `work` gives for blocks, up to `at_once` together: a table of that schema, not yet made.

    `columns` are those of the blocks that it reads: others do not travel. `work` is pickled to the workers, so it holds
    names of distributed files and plain values, no arrays. In the columns that `names` has, it gives lists of positions
    in a distributed file of strings, and the table holds the strings.
    """

    blocks: Blocks
    columns: Collection[str]
    work: Work
    schema: StructType
    at_once: int = 1
    names: Names = field(default_factory=dict)

    def frame(self) -> DataFrame:
        """The table as a frame: a map-only stage, without a shuffle of what the work gives."""
        results, names = self._results(), self.names

        def give(batches: Batches) -> Batches:
            for batch in results(batches):
                yield with_names(batch, names)

        return self.blocks.rows(self.columns).mapInArrow(give, self.schema)

    def write_parts(self, folder: Path, group_rows: int | None = None) -> list[WrittenPart]:
        """Write the table as Parquet files into a folder that driver and executors share; give those that count.

        `group_rows`: most rows of a row group; None for as many as fit in 16 MB.

        Each attempt of a task writes a file with a name of its own, and Spark reports one attempt a task: files of
        attempts that failed, were overtaken or came too late are in the folder too, and are not given.
        """
        results, names = self._results(), self.names

        def write(batches: Batches) -> Batches:
            yield from write_part(results(batches), folder, names, group_rows)

        rows = self.blocks.rows(self.columns).mapInArrow(write, WRITTEN).collect()
        return [WrittenPart(row["name"], row["rows"], row["bytes"]) for row in rows]

    def _results(self) -> Callable[[Batches], Batches]:
        return _results(self.blocks.reader(self.columns), self.work, self.schema, self.at_once)


def task_count(spark: SparkSession) -> int:
    """Tasks that keep every core busy until the end, when each has as much to do."""
    return spark.sparkContext.defaultParallelism * TASKS_A_CORE


def _only(table: DataFrame, columns: Collection[str]) -> DataFrame:
    return table.select(*[name for name in table.columns if name in {"block_id", *columns}])


def _slices(batches: Batches, size: int) -> Batches:
    for batch in batches:
        for position in range(0, batch.num_rows, size):
            yield batch.slice(position, size)


def _spread_together(*tables: DataFrame) -> DataFrame:
    """Block tables joined by `block_id` and spread over the tasks, each moved once."""
    spark = tables[0].sparkSession
    # Below a join Spark makes no fewer parts than its setting says, whatever it is told.
    least, tasks = int(spark.conf.get("spark.sql.shuffle.partitions") or 1), task_count(spark)
    parts_a_task = -(-least // tasks)
    key = _even_key(tasks, parts_a_task)
    first, *others = (table.withColumn("_key", key).repartition(tasks * parts_a_task, "_key") for table in tables)
    joined = first
    for other in others:
        joined = joined.join(other.drop("block_id"), on="_key", how="inner")
    return joined.drop("_key").coalesce(tasks)


def _even_key(tasks: int, parts_a_task: int) -> Column:
    """A number for each block, no two alike, that Spark's hash sends to the part it should be in; to any if none does.

    Blocks go to the tasks in turn, and to the parts of a task in turn: hashes of the ids themselves would give some
    twice as many as others. The first such number of as many as nearly always hold one: 8 times the parts, up to 2,048.
    """
    parts, block = tasks * parts_a_task, F.col("block_id").cast("long")
    room = min(8 * parts, 2048)
    part = block % tasks * parts_a_task + F.floor(block / tasks) % parts_a_task
    numbers = F.sequence(block * room, block * room + (room - 1))
    fits = F.filter(numbers, lambda number: F.pmod(F.hash(number), parts) == part)
    return F.coalesce(F.try_element_at(fits, F.lit(1)), block * room)


def _results(
    read: Callable[[Batches, int], Batches], work: Work, schema: StructType, at_once: int
) -> Callable[[Batches], Batches]:
    def run(rows: Batches) -> Batches:
        _limit_threads()
        for blocks in read(rows, at_once):
            yield _without_nulls(work(blocks), schema)
        _spare_collections()

    return run


# A worker serves many tasks: what follows is done in the first and holds for all.


@cache
def _limit_threads() -> None:
    """Give BLAS the threads of a task.

    Spark sets OMP_NUM_THREADS for its workers; this holds where the environment is not passed on.
    """
    threadpool_limits(limits=int(os.environ.get("OMP_NUM_THREADS", "1")))


@cache
def _spare_collections() -> None:
    """Leave what is loaded by now out of garbage collections.

    Spark's worker collects after every task; through all that NumPy, Numba and pandas have loaded it takes 25 ms.
    """
    gc.freeze()


def _without_nulls(batch: pa.RecordBatch, schema: StructType) -> pa.RecordBatch:
    """The batch, if it holds no null that its schema does not allow: Spark trusts what is declared."""
    for each in schema.fields:
        column = batch.column(each.name)
        if not each.nullable and column.null_count:
            raise ValueError(f"column {each.name} is null in {column.null_count} rows, which its table does not allow")
        if isinstance(each.dataType, ArrayType) and not each.dataType.containsNull and column.flatten().null_count:
            raise ValueError(f"column {each.name} holds nulls in its lists, which its table does not allow")
    return batch
