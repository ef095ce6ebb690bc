from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.publishing import publish
from recsys_spark.storage.receipts import table_receipt, write_receipt
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import start_run
from recsys_spark.tables import DOUBLE, LONG, STRING, ArrayType, Column, Table

SCORES = Table(
    "scores",
    "A table of the tests.",
    (
        Column("user_id", STRING, "Id."),
        Column("value", LONG, "The same number in every row of a run."),
        Column("tags", ArrayType(STRING, False), "Tags."),
        Column("note", DOUBLE, "May be missing.", nullable=True),
    ),
    key=("user_id",),
    published=True,
)
DAY = date(2026, 11, 22)

Nights = Callable[..., RunStorage]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def filesystem() -> LocalFileSystem:
    return LocalFileSystem()


@pytest.fixture
def started(spark: SparkSession, root: str) -> Nights:
    """Starts a run that has nothing yet."""

    def start(day: date = DAY, run_id: str | None = None) -> RunStorage:
        return start_run(spark, root, day, "digest", 7, run_id=run_id, writers={"scores": "recommend"})

    return start


@pytest.fixture
def written(started: Nights) -> Nights:
    """Starts a run and writes four rows of its value."""

    def write(value: int = 1, day: date = DAY, run_id: str | None = None) -> RunStorage:
        storage = started(day, run_id)
        storage.write(SCORES, scores(storage.spark, value))
        return storage

    return write


@pytest.fixture
def published(started: Nights) -> Nights:
    """Starts, writes and publishes a run; without Spark's writer, as most tests need the run, not its rows."""

    def go(value: int = 1, day: date = DAY, run_id: str | None = None, move_pointer: bool | None = None) -> RunStorage:
        storage = started(day, run_id)
        _write_quickly(storage, value)
        publish(storage, {}, move_pointer=move_pointer)
        return storage

    return go


def _write_quickly(storage: RunStorage, value: int) -> None:
    folder = Path(storage.path(SCORES))
    folder.mkdir()
    for part in (0, 2):
        rows = {
            "user_id": [f"u{part}", f"u{part + 1}"],
            "value": [value, value],
            "tags": [["a", "b"]] * 2,
            "note": pa.nulls(2, pa.float64()),
        }
        pq.write_table(pa.table(rows), folder / f"part-0000{part}.parquet")
    write_receipt(storage.filesystem, storage.run, table_receipt(SCORES, 4))


def scores(spark: SparkSession, value: int, rows: int = 4) -> DataFrame:
    """Rows of one value, in two files, with the columns in another order than the table's."""
    return spark.range(0, rows, numPartitions=2).select(
        F.lit(value).cast("long").alias("value"),
        F.lit(None).cast("double").alias("note"),
        F.array(F.lit("a"), F.lit("b")).alias("tags"),
        F.concat(F.lit("u"), F.col("id")).alias("user_id"),
    )
