"""Redis and PostgreSQL as the driver sees them; the writing is in `redis_source` and `postgres_source`."""

from __future__ import annotations

from pyspark.sql import SparkSession

from recsys_spark.export_sections import LoginSection, PostgresExport, RedisExport
from recsys_spark.sinks import (
    postgres_connection,
    postgres_generations,
    postgres_source,
    redis_connection,
    redis_source,
)
from recsys_spark.sinks.postgres_connection import PostgresOptions
from recsys_spark.sinks.redis_connection import RedisOptions
from recsys_spark.sinks.stores import count_lists, lists_of, write_by_tasks
from recsys_spark.storage.run_storage import RunStorage

# What a store is asked before there is a run to export.
_NO_RUN = {"run_id": "", "run_date": "", "users": 0}


class RedisStore:
    """Lists in Redis."""

    def __init__(self, export: RedisExport) -> None:
        self._export = export

    def check(self) -> None:
        """Ask for the pointer."""
        redis_connection.served_run(_redis_options(self._export))

    def served_run(self, spark: SparkSession) -> str | None:
        """What the pointer says."""
        served = redis_connection.served_run(_redis_options(self._export))
        return None if served is None else served.run_id

    def write(self, storage: RunStorage) -> str:
        """Write by the tasks."""
        options = _redis_options(self._export, storage)
        write_by_tasks(lists_of(storage), self._export, redis_source.FORMAT, options.as_texts())
        return f"in the keys {options.generation.start}*"

    def forget(self, spark: SparkSession, user_id: str) -> int:
        """Out of all hashes."""
        return redis_connection.forget_user(_redis_options(self._export), user_id)


class PostgresStore:
    """Lists in PostgreSQL."""

    def __init__(self, export: PostgresExport) -> None:
        self._export = export

    def check(self) -> None:
        """Ask which generation is served."""
        postgres_connection.served_run(_postgres_options(self._export))

    def served_run(self, spark: SparkSession) -> str | None:
        """What the one row says."""
        served = postgres_connection.served_run(_postgres_options(self._export))
        return None if served is None else served.run_id

    def write(self, storage: RunStorage) -> str:
        """Write by the tasks."""
        options = _postgres_options(self._export, storage)
        write_by_tasks(lists_of(storage), self._export, postgres_source.FORMAT, options.as_texts())
        return f"in the view {options.schema}.{options.table}"

    def forget(self, spark: SparkSession, user_id: str) -> int:
        """Out of the tables of all runs."""
        return postgres_generations.forget_user(_postgres_options(self._export), user_id)


def _redis_options(export: RedisExport, storage: RunStorage | None = None) -> RedisOptions:
    own = {"db": export.db, "tls": export.tls, "prefix": export.prefix}
    return RedisOptions(**_common(export, storage), **own, port=export.port)  # type: ignore[arg-type]


def _postgres_options(export: PostgresExport, storage: RunStorage | None = None) -> PostgresOptions:
    own = {"database": export.database, "sslmode": export.sslmode, "schema": export.schema_name, "table": export.table}
    return PostgresOptions(**_common(export, storage), **own, port=export.port)  # type: ignore[arg-type]


def _common(export: LoginSection, storage: RunStorage | None) -> dict[str, object]:
    run = _NO_RUN
    if storage is not None:
        run_date = storage.run.run_date.isoformat()
        run = {"run_id": storage.run.run_id, "run_date": run_date, "users": count_lists(storage)}
    names = ("host", "user", "password_env", "password_file", "ca_file", "grace_s", "unfinished_s")
    return {**run, **{name: getattr(export, name) for name in names}}
