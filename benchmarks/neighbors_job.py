"""The whole job that finds each user's 50 nearest users, from blocks in Parquet to rows in Parquet, on two cores.

Against the bare kernel: the same rows, in memory, by two processes of half the users each.
"""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from benchmarks.harness import LIMIT, PROJECT, report, run_cases, take_turns
from benchmarks.jobs import BLOCK_USERS, CORES, largest_worker, spark_session
from benchmarks.shapes import movielens_20m, shop
from recsys_spark.blockwise.blocks import binary_cell, lists_of
from recsys_spark.blockwise.neighbors import find_neighbors
from recsys_spark.blockwise.plan import TASKS_A_CORE
from recsys_spark.blockwise.stored import stored_blocks
from recsys_spark.blockwise.user_rows import RowSource, distribute_user_rows
from recsys_spark.footprints import worker_bytes_of_search
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.similarity import Similarity
from recsys_spark.memory import MemorySampler
from recsys_spark.storage.mapped import write_parts

K = 50


@dataclass(frozen=True)
class Case:
    """All users of a matrix among each other."""

    shape: str
    users: int
    rounds: int

    @property
    def name(self) -> str:
        """As in `movielens-20k`."""
        return f"{self.shape}-{self.users // 1000}k"

    def rows(self) -> CsrRows:
        """The users' rows."""
        return movielens_20m(self.users) if self.shape == "movielens" else shop(self.users)


SMALL = [Case("movielens", 20_000, 5)]
FULL = [Case("movielens", 20_000, 5), Case("movielens", 138_000, 3), Case("shop", 100_000, 5)]


def write_blocks(rows: CsrRows, folder: Path) -> None:
    """Write `user_blocks`."""
    blocks = []
    for number, first in enumerate(range(0, rows.n_rows, BLOCK_USERS)):
        part = rows.slice_rows(first, min(first + BLOCK_USERS, rows.n_rows))
        whole = IndexLists(np.array([0, part.n_rows]), np.arange(part.n_rows))
        cells = {
            "block_id": pa.array([number], pa.int32()),
            "first_user_idx": pa.array([first], pa.int32()),
            "user_ids": lists_of(whole, pa.array([str(user) for user in range(first, first + part.n_rows)])),
            "indptr": binary_cell(part.indptr),
            "indices": binary_cell(part.indices),
            "ratings": binary_cell(part.values),
            "splits": binary_cell(np.zeros(part.nnz, np.uint8)),
            "ages": binary_cell(np.zeros(part.nnz, np.float32)),
        }
        blocks.append(pa.record_batch(cells))
    folder.mkdir()
    pq.write_table(pa.Table.from_batches(blocks), folder / "part-0.parquet", row_group_size=1, use_dictionary=False)


def job(spark: SparkSession, rows: CsrRows, folder: Path) -> None:
    """Rows handed out, all users searched, neighbors in Parquet."""
    source = RowSource(folder / "blocks", rows.n_rows, rows.n_columns, hold_out=False)
    everybody = distribute_user_rows(spark, source, "none", Path(mkdtemp(dir=folder)), 1 << 30)
    blocks = stored_blocks(spark, [folder / "blocks"])
    output = Path(mkdtemp(dir=folder))
    written = write_parts(find_neighbors(blocks, everybody, K, Similarity("inverse", 1.0)), output)
    assert sum(part.rows for part in written) == rows.n_rows * K
    shutil.rmtree(output)


_rows: dict[str, CsrRows] = {}


def _load(case: Case) -> None:
    _rows["all"] = case.rows()


def _search(half: int) -> None:
    rows = _rows["all"]
    start, stop = (rows.n_rows * bound // CORES for bound in (half, half + 1))
    nearest_rows(rows.slice_rows(start, stop), np.arange(start, stop), rows, 0, K)


def run(case: Case, rounds: int) -> None:
    rows = case.rows()
    folder = Path(mkdtemp(prefix="benchmark-"))
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, context, initializer=_load, initargs=(case,)) for _ in range(CORES)]

    def bare() -> None:
        for future in [pool.submit(_search, half) for half, pool in enumerate(pools)]:
            future.result()

    try:
        write_blocks(rows, folder / "blocks")
        with spark_session() as spark:
            works = {PROJECT: lambda: job(spark, rows, folder), LIMIT: bare}
            seconds = take_turns(works, min(rounds, case.rounds))
            with MemorySampler(largest_worker) as memory:
                job(spark, rows, folder)
    finally:
        for pool in pools:
            pool.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    pairs = rows.n_rows**2
    of_a_core = round(float(np.median(seconds[PROJECT])) * CORES / pairs * 1e9, 3)
    predicted = worker_bytes_of_search(
        BLOCK_USERS, rows.n_columns, rows.n_rows, rows.nnz / rows.n_rows, K, rows.n_rows / (TASKS_A_CORE * CORES), True
    )
    more = {
        "worker_mb": round(memory.peak_bytes / 2**20, 1),
        "predicted_worker_mb": round(predicted / 2**20, 1),
        "ns_a_pair_of_a_core": of_a_core,
    }
    report("neighbors_job", case.name, seconds, processors_used=CORES, **more)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
