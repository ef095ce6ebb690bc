"""The stores of the settings, as the driver sees them: what each serves, and writing a run to it."""

from __future__ import annotations

import re
from typing import Protocol

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.export_sections import (
    FilesExport,
    IcebergExport,
    LoginSection,
    PostgresExport,
    RedisExport,
    StoreExport,
)
from recsys_spark.sinks.errors import ExportError
from recsys_spark.storage.forgotten import read_forgotten
from recsys_spark.storage.parquet import read_parquet
from recsys_spark.storage.paths import Run, find_run
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import RECOMMENDATIONS
from recsys_spark.transforms.forgotten import without_forgotten

# The line of a Python traceback that says what was raised, also inside a message of Spark's.
_RAISED = re.compile(r"^(?:(?:\w+\.)+[A-Z]\w*|\w+(?:Error|Exception)): (.+)$", re.MULTILINE)

_NO_PROGRAM = re.compile(r'Cannot run program "([^"]+)"')


class Store(Protocol):
    """Where lists go. Failures are `ExportError`s; what was served before stays."""

    def check(self) -> None:
        """Fail early, before Spark is started, when the store cannot be reached."""
        ...

    def served_run(self, spark: SparkSession) -> str | None:
        """Id of the run that is served; None before the first export."""
        ...

    def write(self, storage: RunStorage) -> str:
        """Write the lists of a run, serve them, and say in a few words what else there is to know."""
        ...

    def forget(self, spark: SparkSession, user_id: str) -> int:
        """Take the lists of a user out of all that is kept; give their number."""
        ...


def open_store(export: StoreExport) -> Store:
    """The store that a section names.

    Raises:
        ExportError: when its libraries are not installed, naming the extra that has them.
    """
    try:
        return _open(export)
    except ModuleNotFoundError as error:
        extra = "iceberg" if isinstance(export, IcebergExport) else "stores"
        raise ExportError(
            f"exports of kind {export.kind} need {error.name}: install it with pip install 'recsys-spark[{extra}]'"
        ) from error


def register_sources(spark: SparkSession) -> None:
    """Make the formats `recsys_redis` and `recsys_postgres` known to a session: `df.write.format("recsys_redis")`."""
    from recsys_spark.sinks.postgres_source import PostgresDataSource
    from recsys_spark.sinks.redis_source import RedisDataSource

    for source in (RedisDataSource, PostgresDataSource):
        spark.dataSource.register(source)


def write_by_tasks(frame: DataFrame, export: LoginSection, source: str, options: dict[str, str]) -> None:
    """Write with a data source, each task at its share of the rate limit.

    Raises:
        ExportError: with the reason that a task, or the commit, gave.
    """
    register_sources(frame.sparkSession)
    tasks = _most_tasks(frame, export)
    if tasks is not None:
        frame = frame.coalesce(tasks)
    if export.rate_limit is not None and tasks is not None:
        options = {**options, "rate_limit": str(export.rate_limit / tasks)}
    try:
        frame.write.format(source).options(**options).mode("append").save()
    except (PySparkException, Py4JJavaError) as error:
        raise ExportError(reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """What was raised in a Python worker, without the way there."""
    if program := _NO_PROGRAM.search(str(error)):
        return (
            f"the driver's host has no {program.group(1)}, with which an export starts and ends there: "
            "let it lead to the driver's environment"
        )
    raised: list[str] = _RAISED.findall(str(error))
    return raised[-1].strip() if raised else first_line(error)


def first_line(error: Exception) -> str:
    """The first line of a message, or what kind of failure it is."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _most_tasks(frame: DataFrame, export: LoginSection) -> int | None:
    """With a rate limit no more tasks than run at once, or shares would lie idle."""
    if export.rate_limit is None:
        return export.tasks
    cores = frame.sparkSession.sparkContext.defaultParallelism
    return min(export.tasks or cores, cores)


def _open(export: StoreExport) -> Store:
    if isinstance(export, RedisExport):
        from recsys_spark.sinks.server_stores import RedisStore

        return RedisStore(export)
    if isinstance(export, PostgresExport):
        from recsys_spark.sinks.server_stores import PostgresStore

        return PostgresStore(export)
    if isinstance(export, FilesExport):
        from recsys_spark.sinks.feeds import FeedStore

        return FeedStore(export)
    from recsys_spark.sinks.iceberg_store import IcebergStore

    return IcebergStore(export)


def lists_of(storage: RunStorage, run: Run | None = None) -> DataFrame:
    """What every store gets, but users who were forgotten since; or what a run before had, all of it."""
    names = ("user_id", "item_ids", "scores", "tier")
    if run is None:
        lists = storage.read(RECOMMENDATIONS).select(*names)
        return without_forgotten(lists, "user_id", _forgotten_hashes(storage))
    # An earlier version may have written it, with other columns beside these.
    return read_parquet(storage.spark, storage.path(RECOMMENDATIONS, run)).select(*names)


def count_lists(storage: RunStorage) -> int:
    """The number of those lists."""
    return lists_of(storage).count() if _forgotten_hashes(storage) else storage.count(RECOMMENDATIONS)


def _forgotten_hashes(storage: RunStorage) -> list[str]:
    return [each.user_sha256 for each in read_forgotten(storage.filesystem, storage.run.root)]


def base_run(storage: RunStorage, served: str | None) -> Run | None:
    """The run that a store serves, whose lists changes start from, if it is another and has not been removed."""
    if served is None or served == storage.run.run_id:
        return None
    run = find_run(storage.filesystem, storage.run.root, served)
    return run if run is not None and storage.exists(RECOMMENDATIONS, run) else None
