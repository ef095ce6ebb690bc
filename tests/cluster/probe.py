"""A job for `archives.py`: seconds until each executor has run a compiled kernel for the first time, and again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

N_TASKS = 2


def probe(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Import what a scoring task imports, run its kernel, say with which Python."""
    import sys

    import numpy as np

    from recsys_spark.kernels.csr import IndexLists
    from recsys_spark.kernels.scoring import score_top_k

    none_seen = IndexLists(np.zeros(9, np.int64), np.zeros(0, np.int32))
    score_top_k(np.ones((8, 4), np.float32), np.ones((64, 4), np.float32), none_seen, 5)
    for _ in batches:
        yield pa.record_batch([pa.array([sys.executable])], names=["executable"])


def main(submitted_at: float) -> None:
    """Print the seconds since the submission of a first and a second job."""
    spark = SparkSession.builder.appName("probe").getOrCreate()
    seconds, executables = [], set()
    for _ in range(2):
        rows = spark.range(N_TASKS, numPartitions=N_TASKS).mapInArrow(probe, "executable string").collect()
        seconds.append(round(time.time() - submitted_at, 1))
        executables |= {row["executable"] for row in rows}
    print(
        json.dumps({"first_s": seconds[0], "again_s": round(seconds[1] - seconds[0], 1), "seen": sorted(executables)})
    )


if __name__ == "__main__":
    main(float(sys.argv[1]))
