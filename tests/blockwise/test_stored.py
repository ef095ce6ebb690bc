from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from recsys_spark.blockwise import plan
from recsys_spark.blockwise.neighbors import find_neighbors
from recsys_spark.blockwise.plan import TASKS_A_CORE, BlockMap, MovedBlocks
from recsys_spark.blockwise.stored import stored_blocks
from recsys_spark.blockwise.user_rows import distribute_user_rows
from recsys_spark.kernels.similarity import Similarity
from tests.blockwise.conftest import Blocks, Source

GIVEN = "block_id int, lefts array<string>, right double, together int, part int"


def write_tables(folder: Path, n_blocks: int, files: int, group_rows: int) -> list[Path]:
    """Two tables that hold the same blocks, in another order and in other files."""
    random = np.random.default_rng(n_blocks)
    folders = [folder / "left", folder / "right"]
    for side, target in enumerate(folders):
        target.mkdir()
        for number, some in enumerate(np.array_split(random.permutation(n_blocks), files + side)):
            ids = pa.array(some.astype(np.int32))
            columns = {"lefts": pa.array([[f"left {block}"] * (block % 3) for block in some], pa.list_(pa.string()))}
            if side:
                columns = {"right": pa.array(some / 2)}
            table = pa.table({"block_id": ids, **columns, "unread": ids})
            pq.write_table(table, target / f"part-{number}.snappy.parquet", row_group_size=group_rows)
        (target / "_SUCCESS").touch()
    return folders


def give(blocks: pa.RecordBatch) -> pa.RecordBatch:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    size = blocks.num_rows
    return pa.record_batch(
        [
            *(blocks.column(name) for name in ("block_id", "lefts", "right")),
            pa.array([size] * size, pa.int32()),
            pa.array([context.partitionId()] * size, pa.int32()),
        ],
        ["block_id", "lefts", "right", "together", "part"],
    )


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize(("files", "group_rows"), [(1, 1), (3, 2), (2, 100)])
@pytest.mark.parametrize("n_blocks", [0, 1, 5, 100])
def test_each_block_is_read_once_with_both_tables(
    spark: SparkSession, tmp_path: Path, n_blocks: int, files: int, group_rows: int, at_once: int
) -> None:
    stored = stored_blocks(spark, write_tables(tmp_path, n_blocks, files, group_rows))
    columns = ["block_id", "lefts", "right"]
    schema = spark.createDataFrame([], GIVEN).schema
    rows = BlockMap(stored, columns, give, schema, at_once).frame().collect()
    found = sorted((row["block_id"], row["lefts"], row["right"]) for row in rows)
    assert found == [(block, [f"left {block}"] * (block % 3), block / 2) for block in range(n_blocks)]
    tasks = TASKS_A_CORE * spark.sparkContext.defaultParallelism
    counts = Counter(row["part"] for row in rows)
    assert len(counts) == min(tasks, n_blocks)
    assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1
    assert max((row["together"] for row in rows), default=1) == min(at_once, max(counts.values(), default=1))


def test_no_block_is_lost_when_executors_come_in_between(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stored_blocks(spark, write_tables(tmp_path, 50, 3, 1))
    rows = stored.rows(["block_id"]).toArrow().to_batches()
    monkeypatch.setattr(plan, "TASKS_A_CORE", 3)
    found = [block for some in stored.reader(["block_id"])(iter(rows), 4) for block in some.column(0).to_pylist()]
    assert sorted(found) == list(range(50))


@pytest.mark.parametrize("side", [0, 1])
def test_a_block_that_only_one_table_has_is_an_error(spark: SparkSession, tmp_path: Path, side: int) -> None:
    folders = write_tables(tmp_path, 5, 5, 1)
    gone = folders[side] / "part-2.snappy.parquet"
    (block,) = pq.read_table(gone, columns=["block_id"]).column(0).to_pylist()
    gone.unlink()
    with pytest.raises(ValueError, match=rf"block {block} is not in both of .*left and .*right"):
        stored_blocks(spark, folders)


def test_a_block_that_a_table_has_twice_is_an_error(spark: SparkSession, tmp_path: Path) -> None:
    folders = write_tables(tmp_path, 5, 1, 1)
    shutil.copy(folders[0] / "part-0.snappy.parquet", folders[0] / "part-9.snappy.parquet")
    with pytest.raises(ValueError, match=r"block 0 is twice in .*left"):
        stored_blocks(spark, folders)


def test_an_executor_that_does_not_see_a_file_says_what_to_do(spark: SparkSession, tmp_path: Path) -> None:
    stored = stored_blocks(spark, write_tables(tmp_path, 5, 1, 1))
    shutil.rmtree(tmp_path / "right")
    schema = spark.createDataFrame([], GIVEN).schema
    with pytest.raises(PySparkException, match=r"right/part-\d.snappy.parquet is not there on .* all of them mount"):
        BlockMap(stored, ["block_id", "lefts", "right"], give, schema).frame().collect()


@pytest.mark.parametrize("block_users", [4, 23])
def test_stored_user_blocks_give_what_moved_ones_give(
    spark: SparkSession, blocks: Blocks, source: Source, tmp_path: Path, block_users: int
) -> None:
    rows = distribute_user_rows(spark, source(block_users), "none", tmp_path / "rows", 1 << 20)
    similarity = Similarity("inverse", 1.0)
    moved, stored = (
        find_neighbors(some, rows, 5, similarity).frame().collect()
        for some in (MovedBlocks((blocks(block_users),)), stored_blocks(spark, [source(block_users).folder]))
    )
    assert len(stored) > 0
    assert sorted(stored) == sorted(moved)
