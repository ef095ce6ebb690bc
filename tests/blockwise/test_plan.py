from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegerType, StringType, StructField, StructType

from recsys_spark.blockwise import parts
from recsys_spark.blockwise.parts import write_part
from recsys_spark.blockwise.plan import TASKS_A_CORE, BlockMap, MovedBlocks

SCHEMA = StructType(
    [
        StructField("name", StringType(), nullable=False),
        StructField("squares", ArrayType(IntegerType(), containsNull=False), nullable=False),
        StructField("note", StringType(), nullable=True),
    ]
)
N_BLOCKS = 37


def squares_of(some: pa.RecordBatch) -> pa.RecordBatch:
    numbers = some.column("number").to_pylist()
    lists = pa.array([[number, number * number] for number in numbers], pa.list_(pa.int32()))
    return pa.record_batch(
        [pa.array([f"n{n}" for n in numbers]), lists, pa.nulls(len(numbers), pa.string())], SCHEMA.names
    )


def failing_at_first(some: pa.RecordBatch) -> pa.RecordBatch:
    """The last number of a first attempt fails, when a part of the file may have been written."""
    context = TaskContext.get()
    if context is not None and context.attemptNumber() == 0 and 3 in some.column("number").to_pylist():
        raise RuntimeError("the first attempt fails")
    return squares_of(some)


@pytest.fixture(scope="module")
def numbers(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([(number,) for number in range(N_BLOCKS)], "number int")


def rows_in(folder: Path, names: list[str]) -> list[tuple[str, list[int]]]:
    tables = [pq.read_table(folder / name) for name in names]
    return sorted((row["name"], row["squares"]) for table in tables for row in table.to_pylist())


EXPECTED = sorted((f"n{number}", [number, number * number]) for number in range(N_BLOCKS))


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("work", [squares_of, failing_at_first])
def test_files_hold_each_row_once_even_when_attempts_fail(
    numbers: DataFrame, tmp_path: Path, work: Callable[[pa.RecordBatch], pa.RecordBatch], at_once: int
) -> None:
    mapped = BlockMap(MovedBlocks((numbers,)), ["number"], work, SCHEMA, at_once)
    written = mapped.write_parts(tmp_path)
    assert rows_in(tmp_path, [part.name for part in written]) == EXPECTED
    assert sum(part.rows for part in written) == N_BLOCKS
    assert all((tmp_path / part.name).stat().st_size == part.bytes for part in written)
    assert sorted((row["name"], row["squares"]) for row in mapped.frame().collect()) == EXPECTED


def test_spark_reads_the_files_with_the_declared_columns(
    spark: SparkSession, numbers: DataFrame, tmp_path: Path
) -> None:
    BlockMap(MovedBlocks((numbers,)), ["number"], squares_of, SCHEMA).write_parts(tmp_path)
    read = spark.read.parquet(str(tmp_path))
    assert [(field.name, field.dataType.simpleString()) for field in read.schema] == [
        (field.name, field.dataType.simpleString()) for field in SCHEMA
    ]
    assert sorted((row["name"], row["squares"]) for row in read.collect()) == EXPECTED


def test_no_blocks_give_no_files(numbers: DataFrame, tmp_path: Path) -> None:
    assert (
        BlockMap(MovedBlocks((numbers.where("number < 0"),)), ["number"], squares_of, SCHEMA).write_parts(tmp_path)
        == []
    )
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_that_comes_after_the_folder_was_removed_fails(numbers: DataFrame, tmp_path: Path) -> None:
    with pytest.raises(PySparkException, match=r"gone is not there on .* all of them mount"):
        BlockMap(MovedBlocks((numbers,)), ["number"], squares_of, SCHEMA).write_parts(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def without_name(some: pa.RecordBatch) -> pa.RecordBatch:
    good = squares_of(some)
    return good.set_column(0, "name", pa.nulls(good.num_rows, pa.string()))


def with_hole(some: pa.RecordBatch) -> pa.RecordBatch:
    good = squares_of(some)
    return good.set_column(1, "squares", pa.array([[1, None]] * good.num_rows, pa.list_(pa.int32())))


@pytest.mark.parametrize(
    ("work", "message"),
    [(without_name, "column name is null in 1 rows"), (with_hole, "column squares holds nulls in its lists")],
)
def test_nulls_that_are_not_allowed_are_refused(
    numbers: DataFrame, tmp_path: Path, work: Callable[[pa.RecordBatch], pa.RecordBatch], message: str
) -> None:
    with pytest.raises(PySparkException, match=message):
        BlockMap(MovedBlocks((numbers,)), ["number"], work, SCHEMA).write_parts(tmp_path)
    with pytest.raises(PySparkException, match=message):
        BlockMap(MovedBlocks((numbers,)), ["number"], work, SCHEMA).frame().collect()


def test_row_groups_are_closed_when_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_BYTES", 4000)
    batches = [pa.record_batch({"value": np.arange(100) + 100 * number}) for number in range(13)]
    (row,) = (row for batch in write_part(iter(batches), tmp_path, {}) for row in batch.to_pylist())
    file = pq.ParquetFile(tmp_path / row["name"])
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [500, 500, 300]
    assert file.read().column("value").to_pylist() == list(range(1300))


def test_two_attempts_of_one_task_write_two_files(tmp_path: Path) -> None:
    batch = pa.record_batch({"value": [1, 2]})
    names = {
        row["name"] for _ in range(2) for out in write_part(iter([batch]), tmp_path, {}) for row in out.to_pylist()
    }
    assert len(names) == 2
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("shuffle_partitions", ["3", "64"])
@pytest.mark.parametrize("broadcast", ["-1", "10m"])
@pytest.mark.parametrize("n_blocks", [1, 5, 100])
def test_joined_blocks_are_spread_over_the_tasks(
    spark: SparkSession, n_blocks: int, broadcast: str, shuffle_partitions: str
) -> None:
    settings = {"spark.sql.shuffle.partitions": shuffle_partitions, "spark.sql.autoBroadcastJoinThreshold": broadcast}
    before = {name: spark.conf.get(name) for name in settings}
    tasks = TASKS_A_CORE * spark.sparkContext.defaultParallelism
    try:
        for name, value in settings.items():
            spark.conf.set(name, value)
        left = spark.createDataFrame(
            [(block, f"left {block}") for block in range(n_blocks)], "block_id int, one string"
        )
        right = spark.createDataFrame([(block, block / 2) for block in range(n_blocks)], "block_id int, other double")
        joined = MovedBlocks((left, right.where("block_id != 3"))).rows(["one", "other"])
        rows = joined.withColumn("part", F.spark_partition_id()).collect()
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    found = sorted((row["block_id"], row["one"], row["other"]) for row in rows)
    assert found == [(block, f"left {block}", block / 2) for block in range(n_blocks) if block != 3]
    assert rows[0].asDict().keys() == {"block_id", "one", "other", "part"}
    counts = Counter(row["part"] for row in rows)
    assert max(counts) < tasks
    assert max(counts.values()) <= max(2 * n_blocks // tasks, 1)
