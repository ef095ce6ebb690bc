"""What it takes to measure lists beside making them: top 100 of 100,000 items for each user, 64 dimensions, two cores.

`project_s`: ranking metrics and those of all lists together, of lists of 10, 20 and 100 that are stored, with their
intervals, and the paired test against themselves; of `with diversity`: the same and intra-list diversity, by vectors
of 64 dimensions; of `scoring`: the same lists made and stored as recommendations. The goal is a tenth for a million
users.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.harness import PROJECT, report, run_cases, take_turns
from benchmarks.jobs import World, distribute, read_blocks, spark_session, world_folder
from benchmarks.scaling import score
from recsys_spark.blockwise.files import MappedArray, distribute_array, save_array
from recsys_spark.blockwise.lists import measure_lists
from recsys_spark.blockwise.scorers import EmbeddingScorer
from recsys_spark.kernels.pooling import unit_rows
from recsys_spark.metrics.measure import gains_over, measure
from recsys_spark.metrics.spread import TrainingCounts

K, KS = 100, (10, 20, 100)
ITEMS = 100_000


@dataclass(frozen=True)
class Case:
    """Users with lists."""

    users: int

    @property
    def name(self) -> str:
        """As in `100k`."""
        return f"{self.users // 1000}k"


SMALL = [Case(100_000)]
FULL = [Case(100_000), Case(1_000_000)]


def evaluate(spark: SparkSession, stored: Path, vectors: MappedArray | None = None) -> None:
    lists = spark.read.parquet(str(stored))
    measured = measure(lists, "embedding", KS, TrainingCounts(np.ones(ITEMS, np.int64), 1), vectors)
    gains_over({"embedding": measured, "the same": measured}, "the same")


def run(case: Case, rounds: int) -> None:
    world = World(case.users, ITEMS, is_tested=True)
    vectors = world.item_vectors()
    with world_folder(world) as folder, spark_session() as spark:
        items, _ = distribute(spark, world, vectors, folder)
        stored = folder / "lists"
        units = distribute_array(spark, save_array(folder / "units.npy", unit_rows(vectors)))
        measure_lists(read_blocks(spark, folder), EmbeddingScorer(items), K).write.parquet(str(stored))
        contenders = {
            PROJECT: lambda: evaluate(spark, stored),
            "with diversity": lambda: evaluate(spark, stored, units),
            "scoring": lambda: score(spark, world, vectors, folder, K),
        }
        seconds = take_turns(contenders, min(rounds, 3))
    report("evaluating", case.name, seconds, users=case.users, items=ITEMS, k=K)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
