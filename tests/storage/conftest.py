from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.publishing import publish
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
def published(written: Nights) -> Nights:
    """Starts, writes and publishes a run."""

    def go(value: int = 1, day: date = DAY, run_id: str | None = None, move_pointer: bool | None = None) -> RunStorage:
        storage = written(value, day, run_id)
        publish(storage, {}, move_pointer=move_pointer)
        return storage

    return go


def scores(spark: SparkSession, value: int, rows: int = 4) -> DataFrame:
    """Rows of one value, in two files, with the columns in another order than the table's."""
    return spark.range(0, rows, numPartitions=2).select(
        F.lit(value).cast("long").alias("value"),
        F.lit(None).cast("double").alias("note"),
        F.array(F.lit("a"), F.lit("b")).alias("tags"),
        F.concat(F.lit("u"), F.col("id")).alias("user_id"),
    )
