from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.files import distribute_array, distribute_strings, save_array, shard_rows, write_strings


@pytest.mark.parametrize(
    ("n_rows", "row_bytes", "shard_bytes", "expected"),
    [
        (10, 4, 12, [(0, 3), (3, 6), (6, 9), (9, 10)]),
        (10, 4, 40, [(0, 10)]),
        (3, 100, 1, [(0, 1), (1, 2), (2, 3)]),
        (0, 4, 12, [(0, 0)]),
        (2, 0, 12, [(0, 2)]),
    ],
)
def test_shards_are_row_ranges_within_a_size(
    n_rows: int, row_bytes: int, shard_bytes: int, expected: list[tuple[int, int]]
) -> None:
    assert shard_rows(n_rows, row_bytes, shard_bytes) == expected


def test_equal_files_have_names_of_their_own(spark: SparkSession, tmp_path: Path) -> None:
    """On a cluster Spark's file server serves by name alone, and refuses a second path of the same name."""
    arrays = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arrays.append(distribute_array(spark, save_array(tmp_path / name / "positions.npy", np.arange(5))))
    assert arrays[0].name != arrays[1].name
    for array in arrays:
        np.testing.assert_array_equal(array.load(), np.arange(5))


def test_strings_of_all_kinds_are_mapped(spark: SparkSession, tmp_path: Path) -> None:
    chunks = [["a", "", "two\nlines"], [], ["\U0001f600" * 3000, 'quote "']]
    path = write_strings(tmp_path / "ids.arrow", (pa.array(chunk, pa.string()) for chunk in chunks))
    assert distribute_strings(spark, path).load().to_pylist() == [text for chunk in chunks for text in chunk]


def test_every_worker_reads_what_the_driver_wrote(spark: SparkSession, tmp_path: Path) -> None:
    array = distribute_array(spark, save_array(tmp_path / "squares.npy", np.arange(10) ** 2))
    found = spark.sparkContext.parallelize(range(10), 4).map(lambda place: int(array.load()[place])).collect()
    assert found == [place**2 for place in range(10)]
