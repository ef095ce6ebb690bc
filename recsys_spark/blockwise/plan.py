"""The one distributed plan: blocks of queries meet candidates that each worker maps; k a query leave the task.

Candidates reach each executor once, as files, and all its Python workers map them: a Spark broadcast
would be unpickled into one private copy a worker. Memory of a task = its blocks at once + the tiles of the kernel,
whatever the number of users.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructType
from threadpoolctl import threadpool_limits

from recsys_spark.blockwise.parts import WRITTEN, WrittenPart, write_part

Block: TypeAlias = pa.RecordBatch
"""One row of a block table; read its cells with `array_of` and `strings_of` of `blockwise.blocks`."""

TASKS_A_CORE = 4


@dataclass(frozen=True)
class BlockMap:
    """What `work` gives for the rows of a block table, up to `at_once` together: a table of that schema, not yet made.

    A task for each part of `blocks`, so they should be spread.
    `work` is pickled to the workers, so it holds names of distributed files and plain values, no arrays.
    """

    blocks: DataFrame
    work: Callable[[pa.RecordBatch], pa.RecordBatch]
    schema: StructType
    at_once: int = 1

    def frame(self) -> DataFrame:
        """The table as a frame: a map-only stage, without a shuffle of what the work gives."""
        results = _results(self.work, self.schema, self.at_once)
        return self.blocks.mapInArrow(results, self.schema)

    def write_parts(self, folder: Path) -> list[WrittenPart]:
        """Write the table as Parquet files into a folder that driver and executors share; give those that count.

        Each attempt of a task writes a file with a name of its own, and Spark reports one attempt a task: files of
        attempts that failed, were overtaken or came too late are in the folder too, and are not given.
        """
        results = _results(self.work, self.schema, self.at_once)

        def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            yield from write_part(results(batches), folder)

        rows = self.blocks.mapInArrow(write, WRITTEN).collect()
        return [WrittenPart(row["name"], row["rows"], row["bytes"]) for row in rows]


def spread(blocks: DataFrame) -> DataFrame:
    """The blocks over enough tasks to keep every core busy until the end."""
    # An explicit number: adaptive execution would fold small block tables into a single task.
    return blocks.repartition(_tasks(blocks))


def spread_together(blocks: DataFrame, more: DataFrame) -> DataFrame:
    """Two block tables joined by `block_id` and spread over the tasks, each moved once."""
    # Below a join Spark makes no fewer parts than its setting says, whatever it is told.
    least, tasks = int(blocks.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1), _tasks(blocks)
    parts_a_task = -(-least // tasks)
    key = _even_key(tasks, parts_a_task)
    left, right = (table.withColumn("_key", key).repartition(tasks * parts_a_task, "_key") for table in (blocks, more))
    return left.join(right.drop("block_id"), on="_key", how="inner").drop("_key").coalesce(tasks)


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


def _tasks(blocks: DataFrame) -> int:
    return blocks.sparkSession.sparkContext.defaultParallelism * TASKS_A_CORE


def _results(
    work: Callable[[pa.RecordBatch], pa.RecordBatch], schema: StructType, at_once: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Spark sets OMP_NUM_THREADS for its workers; this holds where the environment is not passed on.
        with threadpool_limits(limits=int(os.environ.get("OMP_NUM_THREADS", "1"))):
            for batch in batches:
                for position in range(0, batch.num_rows, at_once):
                    yield _without_nulls(work(batch.slice(position, at_once)), schema)
        _spare_collections()

    return run


def _spare_collections() -> None:
    """Leave what is loaded by now out of garbage collections.

    Spark's worker collects after every task; through all that NumPy, Numba and pandas have loaded it takes 25 ms.
    """
    if gc.get_freeze_count() == 0:
        gc.freeze()


def _without_nulls(batch: pa.RecordBatch, schema: StructType) -> pa.RecordBatch:
    """The batch, if it holds no null that its schema does not allow: Spark trusts what is declared."""
    for field in schema.fields:
        column = batch.column(field.name)
        if not field.nullable and column.null_count:
            raise ValueError(f"column {field.name} is null in {column.null_count} rows, which its table does not allow")
        if isinstance(field.dataType, ArrayType) and not field.dataType.containsNull and column.flatten().null_count:
            raise ValueError(f"column {field.name} holds nulls in its lists, which its table does not allow")
    return batch
