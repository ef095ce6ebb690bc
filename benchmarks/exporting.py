"""Users a second to Redis and to PostgreSQL on loopback, 10 items each, from `local[2]`: written and served.

`project_s` is a whole export of stored lists, with the count, the key and the flip; `users_per_s` is its median.
Clients and server share the two cores. `bytes_per_user` is what the server holds of one run. `plain` writes some users
the plain way, in one process without Spark, from Arrow as a task gets them: a pipeline of SET of JSON by `json.dumps`;
binary COPY with `write_row`; `text_users_per_s` is COPY of the project's text in the same way.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.harness import PROJECT, report, run_cases, take_turns
from benchmarks.jobs import spark_session
from recsys_spark.sinks import postgres_source, redis_source
from recsys_spark.sinks.postgres_connection import PostgresOptions
from recsys_spark.sinks.redis_connection import RedisOptions
from recsys_spark.sinks.stores import register_sources
from recsys_spark.sinks.texts import copy_rows
from tests.sinks.servers import HOST, PostgresServer, RedisServer, postgres_server, redis_server

ITEMS_A_LIST, FILES = 10, 8
PLAIN_USERS = 20_000
_runs = itertools.count()


@dataclass(frozen=True)
class Case:
    """A store, and users with lists."""

    store: str
    users: int

    @property
    def name(self) -> str:
        """As in `redis-200k`."""
        return f"{self.store}-{self.users // 1000}k"


SMALL = [Case("redis", 200_000), Case("postgres", 200_000)]
FULL = [*SMALL, Case("redis", 1_000_000), Case("postgres", 1_000_000)]


def run(case: Case, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, spark_session(conf={"spark.driver.memory": "2g"}) as spark:
        lists = stored_lists(spark, case.users, folder)
        register_sources(spark)
        rows = pq.read_table(f"{folder}/lists").slice(0, PLAIN_USERS).combine_chunks()
        with STORES[case.store](Path(folder), lists, case.users, rows) as (contenders, held):
            seconds = take_turns(contenders, min(rounds, 5))
            more = {"users_per_s": round(case.users / statistics.median(seconds[PROJECT]))}
            for name in set(seconds) - {PROJECT}:
                more[f"{name}_users_per_s"] = round(len(rows) / statistics.median(seconds.pop(name)))
            report("export", case.name, seconds, **more, users=case.users, k=ITEMS_A_LIST, **held())


def stored_lists(spark: SparkSession, users: int, folder: str) -> DataFrame:
    """Lists in Parquet, with ids of some ten characters."""
    item = "concat('item-', pmod(hash(id, place), 100000))"
    lists = spark.range(0, users, numPartitions=FILES).select(
        F.concat(F.lit("user-"), F.col("id")).alias("user_id"),
        F.expr(f"transform(sequence(1, {ITEMS_A_LIST}), place -> {item})").alias("item_ids"),
        F.expr(f"transform(sequence(1, {ITEMS_A_LIST}), place -> cast(1 / (place + id % 7) as float))").alias("scores"),
        F.lit("embedding").alias("tier"),
    )
    lists.write.parquet(f"{folder}/lists")
    return spark.read.parquet(f"{folder}/lists")


Held = Callable[[], dict[str, Any]]
Prepared = tuple[dict[str, Callable[[], object]], Held]


@contextmanager
def to_redis(folder: Path, lists: DataFrame, users: int, rows: pa.Table) -> Iterator[Prepared]:
    with redis_server(folder / "redis") as server:
        options = {"port": server.port, "password_file": str(server.password_file), "users": users, "prefix": "bench"}

        def export() -> None:
            _drop(server)
            run_id = f"run{next(_runs)}"
            given = RedisOptions(host=HOST, run_id=run_id, run_date="2026-11-22", **options)  # type: ignore[arg-type]
            lists.write.format(redis_source.FORMAT).options(**given.as_texts()).mode("append").save()

        def plain() -> None:
            client = server.client()
            for start in range(0, len(rows), 500):
                with client.pipeline(transaction=False) as pipeline:
                    for row in rows.slice(start, 500).to_pylist():
                        pairs = list(zip(row["item_ids"], row["scores"], strict=True))
                        pipeline.set(f"plain:run:{row['user_id']}", json.dumps(pairs))
                    pipeline.execute()

        def held() -> dict[str, Any]:
            client = server.client()
            client.flushall()
            empty = client.info("memory")["used_memory"]
            plain()
            per_plain = (client.info("memory")["used_memory"] - empty) / len(rows)
            export()
            return {"bytes_per_user": round((client.info("memory")["used_memory"] - empty) / users),
                    "plain_bytes_per_user": round(per_plain)}  # fmt: skip

        yield {PROJECT: export, "plain": plain}, held


@contextmanager
def to_postgres(folder: Path, lists: DataFrame, users: int, rows: pa.Table) -> Iterator[Prepared]:
    with postgres_server() as server:
        options = {"port": server.port, "password_file": str(server.password_file), "users": users, "grace_s": 0}

        def export() -> None:
            run = {"run_id": f"run{next(_runs)}", "run_date": "2026-11-22"}
            given = PostgresOptions(host=HOST, database="serving", user="exporter", **run, **options)  # type: ignore[arg-type]
            lists.write.format(postgres_source.FORMAT).options(**given.as_texts()).mode("append").save()

        def plain() -> None:
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute("CREATE TEMP TABLE plain (user_id text, item_ids text[], scores real[], tier text)")
                with cursor.copy("COPY plain FROM STDIN (FORMAT binary)") as copy:
                    copy.set_types(["text", "text[]", "float4[]", "text"])
                    for row in rows.to_pylist():
                        copy.write_row(tuple(row.values()))

        def text() -> None:
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute("CREATE TEMP TABLE plain (user_id text, item_ids text[], scores real[], tier text)")
                with cursor.copy("COPY plain FROM STDIN") as copy:
                    for batch in rows.to_batches():
                        copy.write(copy_rows(batch))

        yield {PROJECT: export, "plain": plain, "text": text}, lambda: {"bytes_per_user": _table_bytes(server) // users}


def _drop(server: RedisServer) -> None:
    """Two runs at a time, as in life."""
    client = server.client()
    for key in client.scan_iter("bench:*", count=1000):
        if client.ttl(key) > 0:
            client.unlink(key)


def _table_bytes(server: PostgresServer) -> int:
    with server.connect() as connection:
        asked = (
            "SELECT pg_total_relation_size(format('recommendations_lists_%s', generation)::regclass) "
            "FROM recommendations_serving"
        )
        row = connection.execute(asked).fetchone()
    return 0 if row is None else int(row[0])


STORES = {"redis": to_redis, "postgres": to_postgres}


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
