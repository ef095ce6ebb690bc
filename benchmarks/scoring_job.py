"""The whole job that scores every user, from blocks in Parquet to lists in Parquet, on two cores.

Against the bare kernel: the same blocks, in memory, by two processes. What the job takes beyond is itemised. Against
MLlib's `recommendForAllUsers` on the same factors, no seen items left out on either side; the fastest of several block
sizes and BLAS implementations, found on a tenth of the users.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql.types import LongType, StructField, StructType
from threadpoolctl import threadpool_limits

from benchmarks.harness import LIMIT, PROJECT, Work, report, run_cases, take_turns
from benchmarks.jobs import CORES, Floats, World, distribute, read_blocks, spark_session, world_folder
from recsys_spark.blockwise.blocks import TRAIN, array_of, items_in_splits
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.plan import BlockMap
from recsys_spark.blockwise.scorers import EmbeddingScorer
from recsys_spark.kernels.bounds import bounds_of_any_order
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.storage.mapped import write_parts

BLOCK_SIZES = (1024, 4096, 16384)
COUNTED = StructType([StructField("lists", LongType(), nullable=False)])


@dataclass(frozen=True)
class Case:
    """All users of a world, lists of k; `peer` says whether MLlib takes part."""

    users: int
    items: int
    k: int
    peer: bool
    rounds: int = 5

    @property
    def name(self) -> str:
        """As in `20k-20k-10`."""
        return f"{self.users // 1000}k-{self.items // 1000}k-{self.k}"

    @property
    def world(self) -> World:
        """Its users and items."""
        return World(self.users, self.items, seen=100)


SMALL = [Case(20_000, 20_000, 10, peer=True, rounds=1), Case(20_000, 100_000, 100, peer=False)]
FULL = [
    Case(20_000, 20_000, 10, peer=True, rounds=5),
    Case(20_000, 20_000, 100, peer=True, rounds=3),
    Case(100_000, 20_000, 10, peer=True, rounds=3),
    Case(100_000, 20_000, 100, peer=True, rounds=3),
    Case(100_000, 100_000, 100, peer=False),
]


def job(
    spark: SparkSession, case: Case, vectors: Floats, folder: Path, exclude_seen: bool, by_spark: bool = False
) -> Work:
    """Candidates handed out, all users scored, lists in Parquet."""

    def work() -> None:
        items, ids = distribute(spark, case.world, vectors, folder)
        lists = recommend(read_blocks(spark, folder), EmbeddingScorer(items), ids, case.k, exclude_seen)
        output = Path(mkdtemp(dir=folder))
        if by_spark:
            lists.frame().write.mode("overwrite").parquet(str(output))
        else:
            write_parts(lists, output)
        assert pq.ParquetDataset(output).read(columns=["user_id"]).num_rows == case.users
        shutil.rmtree(output)

    return work


def parts_of_job(spark: SparkSession, case: Case, vectors: Floats, folder: Path) -> dict[str, Work]:
    """The job cut short after each of its parts; the differences are what the parts take."""
    items, ids = distribute(spark, case.world, vectors, folder)
    blocks, scorer = read_blocks(spark, folder), EmbeddingScorer(items)
    whole = recommend(blocks, scorer, ids, case.k)
    lists = whole.work

    def counted(work: Callable[[pa.RecordBatch], int]) -> Work:
        mapped = BlockMap(blocks, whole.columns, lambda block: pa.record_batch({"lists": [work(block)]}), COUNTED)
        return lambda: mapped.frame().collect()

    def kernel(block: pa.RecordBatch) -> int:
        return len(scorer(block, items_in_splits(block, (TRAIN,)), case.k).tiers)

    return {
        "distribute": lambda: distribute(spark, case.world, vectors, folder),
        "read": counted(lambda block: block.num_rows),
        "kernel": counted(kernel),
        "lists": counted(lambda block: lists(block).num_rows),
    }


class Bare:
    """The kernel on the same blocks in two processes that hold their halves in memory, without Spark."""

    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, context, initializer=_load_half, initargs=(case, half)) for half in range(CORES)
        ]

    def __call__(self) -> None:
        """Score everybody."""
        for future in [pool.submit(_score_half) for pool in self._pools]:
            future.result()

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown()


_half: dict[str, Any] = {}


def _load_half(case: Case, half: int) -> None:
    blocks = list(case.world.blocks())[half::CORES]
    vectors = case.world.item_vectors()
    _half["k"], _half["items"], _half["bounds"] = case.k, vectors, bounds_of_any_order(vectors)
    _half["blocks"] = [_arrays(block) for block in blocks]


def _arrays(block: pa.RecordBatch) -> tuple[Floats, IndexLists]:
    excluded = items_in_splits(block, (TRAIN,))
    return array_of(block, "vectors", np.float32).reshape(excluded.n_rows, -1), excluded


def _score_half() -> None:
    with threadpool_limits(1):
        for users, excluded in _half["blocks"]:
            score_top_k(users, _half["items"], excluded, _half["k"], bounds=_half["bounds"])


def blas_options() -> dict[str, str]:
    """Java options for each BLAS that MLlib can use here; the native one is the OpenBLAS that faiss brings."""
    options = {"java": "", "vector": "--add-modules=jdk.incubator.vector"}
    import faiss

    found = sorted((Path(faiss.__file__).parent.parent / "faiss_cpu.libs").glob("libopenblas*"))
    if found:
        options["native"] = f"-Ddev.ludovic.netlib.blas.nativeLibPath={found[0]}"
        # For the libraries that it needs itself; one thread a task.
        os.environ |= {"LD_LIBRARY_PATH": str(found[0].parent), "OMP_NUM_THREADS": "1"}
    return options


def with_mllib(spark: SparkSession, case: Case, vectors: Floats, folder: Path, block_size: int) -> Work:
    """The factors in an `ALSModel`, in Spark's memory."""
    from pyspark.ml.recommendation import ALSModel

    users = np.concatenate([array_of(block, "vectors", np.float32) for block in case.world.blocks()])
    frames = []
    for name, factors in (("users", users.reshape(case.users, -1)), ("items", vectors)):
        path = folder / f"mllib-{name}"
        if not path.exists():
            path.mkdir()
            ids = pa.array(np.arange(len(factors), dtype=np.int32))
            lists = pa.FixedSizeListArray.from_arrays(pa.array(factors.ravel()), factors.shape[1])
            pq.write_table(pa.table({"id": ids, "features": lists.cast(pa.list_(pa.float32()))}), path / "part.parquet")
        frame = spark.read.parquet(str(path)).repartition(4 * CORES).cache()
        frame.count()
        frames.append(frame._jdf)
    java = spark._jvm.org.apache.spark.ml.recommendation.ALSModel("als", vectors.shape[1], *frames)
    model = ALSModel(java.setUserCol("user").setItemCol("item").setBlockSize(block_size))

    def work() -> None:
        output = Path(mkdtemp(dir=folder))
        model.recommendForAllUsers(case.k).write.mode("overwrite").parquet(str(output))
        shutil.rmtree(output)

    return work


def find_fastest(case: Case) -> dict[str, float]:
    """Seconds of MLlib for a tenth of the users by BLAS and block size, each BLAS in a process of its own."""
    seconds = {}
    for blas in blas_options():
        code = f"from benchmarks.scoring_job import sweep; sweep({case.users // 10}, {case.items}, {case.k}, {blas!r})"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for line in found.stdout.splitlines():
            size, took = line.split()
            seconds[f"{blas} {size}"] = float(took)
    return seconds


def sweep(users: int, items: int, k: int, blas: str) -> None:
    """Print block sizes and seconds."""
    case = Case(users, items, k, peer=True)
    with world_folder(case.world) as folder, spark_session(conf=java_options(blas)) as spark:
        works = {size: with_mllib(spark, case, case.world.item_vectors(), folder, size) for size in BLOCK_SIZES}
        for warm in (False, True):
            for size, work in works.items():
                started = time.perf_counter()
                work()
                if warm:
                    print(size, time.perf_counter() - started)


def java_options(blas: str) -> dict[str, str]:
    return {"spark.driver.extraJavaOptions": blas_options()[blas]}


def run(case: Case, rounds: int) -> None:
    more: dict[str, Any] = {"processors_used": CORES}
    conf, block_size = {}, 0
    if case.peer:
        more["mllib_sweep_s"] = {name: round(took, 2) for name, took in find_fastest(case).items()}
        blas, size = min(more["mllib_sweep_s"], key=more["mllib_sweep_s"].__getitem__).split()
        conf, block_size = java_options(blas), int(size)
    vectors = case.world.item_vectors()
    with world_folder(case.world) as folder, spark_session(conf=conf) as spark:
        if case.peer:
            works = {
                PROJECT: job(spark, case, vectors, folder, exclude_seen=False),
                "with_seen_left_out": job(spark, case, vectors, folder, exclude_seen=True),
                "mllib": with_mllib(spark, case, vectors, folder, block_size),
            }
            seconds = take_turns(works, min(rounds, case.rounds))
            more["with_seen_left_out_s"] = float(np.median(seconds.pop("with_seen_left_out")))
        else:
            seconds = beside_the_kernel(spark, case, vectors, folder, rounds, more)
        report("scoring_job", case.name, seconds, **more)


def beside_the_kernel(
    spark: SparkSession, case: Case, vectors: Floats, folder: Path, rounds: int, more: dict[str, Any]
) -> dict[str, list[float]]:
    """The job, the bare kernel, and the job's parts in turns; the parts go into `more`."""
    bare = Bare(case)
    works: dict[str, Work] = {
        PROJECT: job(spark, case, vectors, folder, exclude_seen=True),
        LIMIT: bare,
        "by_spark": job(spark, case, vectors, folder, exclude_seen=True, by_spark=True),
        **parts_of_job(spark, case, vectors, folder),
    }
    seconds = take_turns(works, rounds)
    bare.close()
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    items = {
        "distribute": medians["distribute"],
        "read_and_arrow_in": medians["read"],
        "kernel": medians["kernel"] - medians["read"],
        "ids_and_lists": medians["lists"] - medians["kernel"],
        "parquet": medians[PROJECT] - medians["distribute"] - medians["lists"],
        "parquet_by_spark": medians["by_spark"] - medians["distribute"] - medians["lists"],
    }
    more["items_s"] = {name: round(value, 3) for name, value in items.items()}
    more["by_spark_times_limit"] = round(medians["by_spark"] / medians[LIMIT], 3)
    return {name: seconds[name] for name in (PROJECT, LIMIT)}


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
