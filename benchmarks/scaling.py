"""How the scoring job grows with users: 100,000 items of 64 dimensions, lists of 10, on two cores, at equal memory.

Each case keeps seconds, the largest private memory of a worker, and the bytes shuffled; the last line of a run has the
slope of log(seconds) over log(users). `predicted_worker_mb` is what `recsys-spark plan` says of a worker.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.harness import PROJECT, report, run_cases, take_turns
from benchmarks.jobs import (
    BLOCK_USERS,
    CORES,
    Floats,
    World,
    distribute,
    largest_worker,
    read_blocks,
    spark_session,
    world_folder,
)
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.plan import TASKS_A_CORE
from recsys_spark.blockwise.scorers import EmbeddingScorer
from recsys_spark.footprints import worker_bytes_of_scoring
from recsys_spark.memory import MemorySampler
from recsys_spark.storage.mapped import write_parts

K = 10
ITEMS = 100_000
SEEN = 50


@dataclass(frozen=True)
class Case:
    """Users to score, and how often."""

    users: int
    rounds: int

    @property
    def name(self) -> str:
        """As in `100k`."""
        return f"{self.users // 1000}k"


SMALL = [Case(10_000, 3), Case(100_000, 3)]
FULL = [Case(10_000, 5), Case(100_000, 5), Case(1_000_000, 3)]
MEASURED: dict[int, float] = {}


def shuffled_bytes(spark: SparkSession) -> int:
    """Bytes written to shuffles by all stages so far."""
    java, store = spark._jvm.java.util.ArrayList, spark.sparkContext._jsc.sc().statusStore()
    no_quantiles = spark.sparkContext._gateway.new_array(spark._jvm.double, 0)
    stages = store.stageList(java(), False, False, no_quantiles, java())
    return sum(stages.apply(number).shuffleWriteBytes() for number in range(stages.size()))


def score(spark: SparkSession, world: World, vectors: Floats, folder: Path, k: int = K) -> None:
    """Make and store the lists of all users."""
    items, ids = distribute(spark, world, vectors, folder)
    output = Path(mkdtemp(dir=folder))
    write_parts(recommend(read_blocks(spark, folder), EmbeddingScorer(items), ids, k), output)
    shutil.rmtree(output)


def run(case: Case, rounds: int) -> None:
    world = World(case.users, ITEMS, seen=SEEN)
    vectors = world.item_vectors()
    with world_folder(world) as folder, spark_session() as spark:
        seconds = take_turns({PROJECT: lambda: score(spark, world, vectors, folder)}, min(rounds, case.rounds))
        before = shuffled_bytes(spark)
        with MemorySampler(largest_worker) as memory:
            score(spark, world, vectors, folder)
        shuffled = shuffled_bytes(spark) - before
    MEASURED[case.users] = float(np.median(seconds[PROJECT]))
    users_a_task = case.users / (TASKS_A_CORE * CORES)
    predicted = worker_bytes_of_scoring(BLOCK_USERS, world.dims, SEEN, K, users_a_task, is_local=True)
    more = {
        "users": case.users,
        "worker_mb": round(memory.peak_bytes / 2**20, 1),
        "predicted_worker_mb": round(predicted / 2**20, 1),
        "shuffled_mb": round(shuffled / 2**20, 1),
    }
    if len(MEASURED) > 1:
        users, taken = (np.log(list(values)) for values in (MEASURED.keys(), MEASURED.values()))
        more["slope"] = round(float(np.polyfit(users, taken, 1)[0]), 3)
    report("scaling", case.name, seconds, **more)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
