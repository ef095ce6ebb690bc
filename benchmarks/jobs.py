"""What the benchmarks of whole Spark jobs share: a session, and synthetic users and items as a night leaves them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.blocks import TEST, binary_cell, lists_of
from recsys_spark.blockwise.files import MappedStrings
from recsys_spark.blockwise.items import distribute_ids, distribute_items
from recsys_spark.blockwise.plan import Blocks
from recsys_spark.blockwise.scorers import ItemVectors
from recsys_spark.blockwise.stored import stored_blocks
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.tables import ITEMS, USER_BLOCKS, USER_EMBEDDINGS

BLOCK_USERS = 1024
FILE_BLOCKS = 64
CORES = 2
DRIVER_MEMORY = "4g"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """Users with embeddings and items they have seen, more of the popular ones, and items with embeddings.

    With `is_tested`, one of the items of each user is held out.
    """

    users: int
    items: int
    dims: int = 64
    seen: int = 50
    is_tested: bool = False

    def item_vectors(self) -> Floats:
        """Item embeddings, (items, dims)."""
        return np.random.default_rng(1).standard_normal((self.items, self.dims), np.float32)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The rows of `user_blocks` and `user_embeddings` joined."""
        popularity = np.cumsum(1.0 / (np.arange(self.items) + 10.0) ** 0.8)
        for block, first in enumerate(range(0, self.users, BLOCK_USERS)):
            random = np.random.default_rng((2, block))
            n_users = min(BLOCK_USERS, self.users - first)
            vectors = random.standard_normal((n_users, self.dims), np.float32)
            drawn = np.searchsorted(popularity, random.random(n_users * self.seen) * popularity[-1])
            keys = np.unique(np.repeat(np.arange(n_users), self.seen) * self.items + drawn)
            indptr = np.searchsorted(keys, np.arange(n_users + 1) * self.items).astype(np.int64)
            splits = np.zeros(keys.size, np.uint8)
            if self.is_tested:
                splits[indptr[:-1] + random.integers(np.diff(indptr))] = TEST
            ids = pa.array([f"user-{user}" for user in range(first, first + n_users)])
            yield pa.record_batch(
                {
                    "block_id": pa.array([block], pa.int32()),
                    "first_user_idx": pa.array([first], pa.int32()),
                    "user_ids": lists_of(IndexLists(np.array([0, n_users]), np.arange(n_users)), ids),
                    "indptr": binary_cell(indptr),
                    "indices": binary_cell((keys % self.items).astype(np.int32)),
                    "ratings": binary_cell(np.ones(keys.size, np.float32)),
                    "splits": binary_cell(splits),
                    "ages": binary_cell(np.zeros(keys.size, np.float32)),
                    "vectors": binary_cell(vectors),
                    "is_trained": binary_cell(np.ones(n_users, np.uint8)),
                }
            )

    def write(self, folder: Path) -> None:
        """Write `user_blocks`, `user_embeddings` and `items` as Parquet, a file every 64 blocks."""
        for table in (USER_BLOCKS, USER_EMBEDDINGS, ITEMS):
            (folder / table.name).mkdir(parents=True)
        held: list[pa.RecordBatch] = []
        for number, block in enumerate(self.blocks()):
            held.append(block)
            if len(held) == FILE_BLOCKS:
                _write_blocks(folder, f"part-{number:05d}.parquet", held)
                held = []
        if held:
            _write_blocks(folder, "part-last.parquet", held)
        ids = pa.array([f"item-{item}" for item in range(self.items)])
        index = pa.table({"item_idx": pa.array(np.arange(self.items, dtype=np.int32)), "item_id": ids})
        pq.write_table(index, folder / ITEMS.name / "part-0.parquet")


def _write_blocks(folder: Path, name: str, blocks: list[pa.RecordBatch]) -> None:
    rows = pa.Table.from_batches(blocks)
    for table in (USER_BLOCKS, USER_EMBEDDINGS):
        path = folder / table.name / name
        pq.write_table(rows.select(table.schema.names), path, row_group_size=1, use_dictionary=False)


@contextmanager
def world_folder(world: World) -> Iterator[Path]:
    """A folder that holds the world while the block runs, with room for more."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        world.write(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def spark_session(master: str = f"local[{CORES},4]", conf: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """A session as a night opens it, quiet; the block's end stops it."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.driver.memory": DRIVER_MEMORY,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(4 * CORES),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        **(conf or {}),
    }
    builder = SparkSession.builder.master(master).appName("benchmarks")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()


def read_blocks(spark: SparkSession, folder: Path) -> Blocks:
    """The blocks to score, with the embeddings of their users, as a night reads them from a local root."""
    return stored_blocks(spark, [folder / table.name for table in (USER_BLOCKS, USER_EMBEDDINGS)])


def distribute(
    spark: SparkSession, world: World, vectors: Floats, folder: Path, shard_bytes: int = 1 << 30
) -> tuple[ItemVectors, MappedStrings]:
    """Hand the item vectors and ids to the executors, as a night does."""
    scratch = Path(tempfile.mkdtemp(dir=folder))
    is_candidate = np.ones(world.items, np.bool_)
    items = distribute_items(spark, vectors, is_candidate, scratch, shard_bytes)
    return items, distribute_ids(spark, folder / ITEMS.name, "item", scratch)


def largest_worker() -> int:
    """Bytes of the largest Python worker now: its own and its share of what it was forked with, no pages of files."""
    largest = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "pyspark.daemon" in process.cmdline():
                largest = max(largest, memory_of("Pss_Anon", process.pid))
        except (psutil.Error, OSError):  # it has ended
            continue
    return largest


def memory_of(kind: str, process: int | Literal["self"]) -> int:
    """Bytes of a kind of memory, such as `Pss`, that Linux counts for a process."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{kind}:"))
    return int(line.split()[1]) * 1024
