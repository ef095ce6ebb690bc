"""Data sources that are killed or fail at a chosen moment; made in functions, so that workers get them by value."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import redis
from pyspark import TaskContext

from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.postgres_source import PostgresDataSource, PostgresWriter
from recsys_spark.sinks.redis_source import RedisDataSource, RedisWriter

SOURCES: dict[str, tuple[Any, Any]] = {
    "redis": (RedisDataSource, RedisWriter),
    "postgres": (PostgresDataSource, PostgresWriter),
}


def disturbed(kind: str, disturb: Callable[[str], None]) -> Any:
    """The data source of a store, whose writer calls `disturb` with `first batch`, `commit` and `served`.

    The first batch is of part 0, and comes a row at a time: the first is written, then `disturb` is called.
    """
    source_class, writer_class = SOURCES[kind]

    class Writer(writer_class):  # type: ignore[misc]
        def write(self, iterator: Iterator[pa.RecordBatch]) -> Any:
            context = TaskContext.get()
            is_first = context is not None and context.partitionId() == 0

            def batches() -> Iterator[pa.RecordBatch]:
                for batch in iterator:
                    yield batch.slice(0, 1)
                    if is_first:
                        disturb("first batch")
                    yield batch.slice(1)

            return super().write(batches())

        def commit(self, messages: list[Any]) -> None:
            disturb("commit")
            super().commit(messages)
            disturb("served")

    class Source(source_class):  # type: ignore[misc]
        def writer(self, schema: Any, overwrite: bool) -> Any:
            return Writer(super().writer(schema, overwrite).options)

    return Source


def kill_first_attempt(moment: str) -> None:
    """The worker dies in the middle of its first attempt."""
    context = TaskContext.get()
    if moment == "first batch" and context is not None and context.attemptNumber() == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def breaks_once(kind: str, port: int, password: str, done: str) -> Callable[[str], None]:
    """The server ends all connections of the export, once."""

    def disturb(moment: str) -> None:
        if moment != "first batch" or Path(done).exists():
            return
        Path(done).touch()
        if kind == "redis":
            client = redis.Redis(port=port, password=password)
            client.client_kill_filter(_type="normal", skipme=True)
        else:
            with psycopg.connect(
                host="127.0.0.1", port=port, user="exporter", password=password, dbname="serving"
            ) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'recsys%'"
                )

    return disturb


def fail_commit(moment: str) -> None:
    if moment == "commit":
        raise ExportError("the commit fails")


def pause_at(chosen: str, reached: str, go_on: str) -> Callable[[str], None]:
    """Say that the moment is reached, by a file, and wait for another; whoever waits may lose its driver meanwhile."""

    def disturb(moment: str) -> None:
        if moment == chosen:
            Path(reached).touch()
            ends = time.monotonic() + 60
            while not Path(go_on).exists() and time.monotonic() < ends:
                time.sleep(0.02)

    return disturb
