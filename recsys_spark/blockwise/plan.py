"""The one distributed plan: blocks of queries meet candidates that each worker maps; k a query leave the task.

Candidates reach each executor once, as files, and all its Python workers map them: a Spark broadcast
would be unpickled into one private copy a worker. Memory of a task = one block + the tiles of the kernel,
whatever the number of users.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import StructType
from threadpoolctl import threadpool_limits

Block: TypeAlias = pa.RecordBatch
"""One row of a block table; read its cells with `array_of` and `strings_of` of `blockwise.blocks`."""

BLOCKS_A_TASK = 4


def map_blocks(
    blocks: DataFrame, work: Callable[[pa.RecordBatch], pa.RecordBatch], schema: StructType, at_once: int = 1
) -> DataFrame:
    """Apply `work` to the rows of a block table, up to `at_once` together, without a shuffle of what it gives.

    `work` is pickled to the workers, so it holds names of distributed files and plain values, no arrays.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Spark sets OMP_NUM_THREADS for its workers; this holds where the environment is not passed on.
        with threadpool_limits(limits=int(os.environ.get("OMP_NUM_THREADS", "1"))):
            for batch in batches:
                for position in range(0, batch.num_rows, at_once):
                    yield work(batch.slice(position, at_once))

    # An explicit number: adaptive execution would fold small block tables into a single task.
    return spread(blocks).mapInArrow(run, schema)


def spread(blocks: DataFrame) -> DataFrame:
    """The blocks over enough tasks to keep every core busy until the end."""
    tasks = blocks.sparkSession.sparkContext.defaultParallelism * BLOCKS_A_TASK
    return blocks.repartition(tasks)
