"""Handing candidates to the four workers of an executor: time until all have read them, memory of each worker.

As files that are fetched once and mapped, which is what the project does, against Spark's broadcast of the same array.
Memory is the proportional share (PSS) beyond that of a worker that has read nothing: pages that four workers share
count a quarter each. The executor is a process of its own (`local-cluster`), so the files do travel.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from benchmarks.harness import PROJECT, Work, report, run_cases, take_turns
from benchmarks.jobs import memory_of, spark_session
from recsys_spark.blockwise.files import distribute_array, save_array

WORKERS = 4
MEASURED = "process long, pss_mb double, total double"


@dataclass(frozen=True)
class Case:
    """An array of so many megabytes."""

    megabytes: int

    @property
    def name(self) -> str:
        """As in `256mb`."""
        return f"{self.megabytes}mb"


SMALL = [Case(256)]
FULL = [Case(256), Case(1024)]

Load = Callable[[], NDArray[np.float32]]


def read_by_all(spark: SparkSession, load: Load) -> list[Any]:
    """Have all workers read the whole array at one time; what each of them holds after that."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            array = load()
            total = float(array.sum(dtype=np.float64))
            # Workers wait for each other, or the first would be measured while it is alone.
            time.sleep(1.0)
            yield pa.record_batch(
                [[os.getpid()], [memory_of("Pss", "self") / 2**20], [total]], names=["process", "pss_mb", "total"]
            )

    rows = spark.range(0, WORKERS, 1, WORKERS).mapInArrow(read, MEASURED, barrier=True).collect()
    assert len({row["process"] for row in rows}) == WORKERS
    return rows


def by_file(spark: SparkSession, array: NDArray[np.float32], folder: Path) -> Load:
    path = save_array(Path(mkdtemp(dir=folder)) / "array.npy", array)
    return distribute_array(spark, path).load


def by_broadcast(spark: SparkSession, array: NDArray[np.float32]) -> Load:
    handle = spark.sparkContext.broadcast(array)
    return lambda: handle.value


def run(case: Case, rounds: int) -> None:
    os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
    array = np.ones(case.megabytes * 2**18, np.float32)
    nothing = np.ones(1, np.float32)
    held: dict[str, list[float]] = {"file": [], "broadcast": []}
    folder = Path(mkdtemp(prefix="benchmark-"))
    try:
        with spark_session(f"local-cluster[1,{WORKERS},2048]", {"spark.python.worker.reuse": "false"}) as spark:
            idle = float(np.median([row["pss_mb"] for row in read_by_all(spark, lambda: nothing)]))

            def measured(way: str, load: Callable[[], Load]) -> Work:
                def work() -> None:
                    rows = read_by_all(spark, load())
                    assert all(row["total"] == array.size for row in rows)
                    held[way].append(float(np.median([row["pss_mb"] for row in rows])) - idle)

                return work

            works = {
                PROJECT: measured("file", lambda: by_file(spark, array, folder)),
                "broadcast": measured("broadcast", lambda: by_broadcast(spark, array)),
            }
            seconds = take_turns(works, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    megabytes = {way: round(float(np.median(values)), 1) for way, values in held.items()}
    report("broadcast", case.name, seconds, workers=WORKERS, array_mb=case.megabytes, worker_pss_mb=megabytes)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
