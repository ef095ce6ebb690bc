"""Redis and PostgreSQL, with real servers: what is served, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.sinks import postgres, redis, stores
from recsys_spark.sinks.contract import Reader
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.stores import open_store
from tests.sinks.conftest import N_USERS, Publish, lists_of, rounded, settings_of
from tests.sinks.disturbed import breaks_once, disturbed, fail_commit, kill_first_attempt
from tests.sinks.servers import PostgresServer, RedisServer

KINDS = ["redis", "postgres"]
Export = Callable[..., None]
Read = Callable[[str], Reader]


@pytest.fixture
def export(exports: dict[str, dict[str, Any]], root: str) -> Export:
    """Exports a run to the store of a kind, with some settings changed."""

    def go(kind: str, storage: Any, **changes: Any) -> None:
        settings = settings_of(root, {kind: {**exports[kind], **changes}})
        export_run(storage, open_store(settings.exports[kind]), kind, Console(quiet=True))

    return go


@pytest.fixture
def read(exports: dict[str, dict[str, Any]], redis_at: RedisServer, postgres_at: PostgresServer) -> Iterator[Read]:
    with postgres_at.connect(autocommit=True) as connection:

        def reader(kind: str) -> Reader:
            if kind == "redis":
                return redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"], refresh_s=0)
            return postgres.RecommendationReader(connection, table=exports["postgres"]["table"])

        yield reader


def serves(reader: Reader, run_id: str) -> bool:
    """Whether every user gets exactly the list of the run."""
    served = reader.run()
    expected = {user: rounded(found) for user, found in lists_of(run_id).items()}
    return (
        served is not None
        and served.run_id == run_id
        and {user: rounded(reader.recommend(user)) for user in expected} == expected
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_run_replaces_the_one_before(kind: str, export: Export, read: Read, published: Publish) -> None:
    first, second = published("r1"), published("r2")
    export(kind, first)
    assert serves(read(kind), "r1")
    export(kind, second)
    assert serves(read(kind), "r2")
    assert read(kind).recommend("nobody") is None
    assert read(kind).recommend("u2", 2) == read(kind).recommend("u2")[:2]  # type: ignore[index]
    export(kind, first)
    assert serves(read(kind), "r1"), "back again, by its id"


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_worker_is_tried_again(
    kind: str, spark: SparkSession, export: Export, read: Read, published: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(kind, published("r1"))
    monkeypatch.setattr(stores, "register_sources", registers(kind, kill_first_attempt))
    export(kind, published("r2"))
    assert serves(read(kind), "r2")


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_connection_is_made_anew(
    kind: str, export: Export, read: Read, published: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    redis_at: RedisServer, postgres_at: PostgresServer,
) -> None:  # fmt: skip
    export(kind, published("r1"))
    server = redis_at if kind == "redis" else postgres_at
    break_connections = breaks_once(kind, server.port, server.password, str(tmp_path / "broken"))
    monkeypatch.setattr(stores, "register_sources", registers(kind, break_connections))
    export(kind, published("r2"))
    assert (tmp_path / "broken").exists()
    assert serves(read(kind), "r2")


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_that_fails_leaves_the_run_before(
    kind: str, export: Export, read: Read, published: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(kind, published("r1"))
    second = published("r2")
    with monkeypatch.context() as patch:
        patch.setattr(stores, "register_sources", registers(kind, fail_commit))
        with pytest.raises(ExportError, match=r"^the commit fails$"):
            export(kind, second)
    assert serves(read(kind), "r1")
    export(kind, second)
    assert serves(read(kind), "r2")


@pytest.mark.parametrize("kind", KINDS)
def test_users_who_are_missing_are_noticed(kind: str, export: Export, read: Read, published: Publish) -> None:
    export(kind, published("r1"))
    short = published("r2")
    receipt = short.filesystem.read_bytes(short.run.receipt_path("recommendations"))
    short.filesystem.replace(short.run.receipt_path("recommendations"), receipt.replace(b'"rows": 60', b'"rows": 61'))
    with pytest.raises(ExportError, match=r"run r2 has 61 users, 60 were written and .* holds 60"):
        export(kind, short)
    assert serves(read(kind), "r1")


def test_postgres_notices_a_user_who_comes_twice(
    export: Export, read: Read, published: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    export("postgres", published("r1"))
    both = published("r2")
    monkeypatch.setattr("recsys_spark.sinks.server_stores.lists_of", lambda storage: _with_twin(storage))
    with pytest.raises(ExportError, match=r"could not create unique index|is duplicated"):
        export("postgres", both)
    assert serves(read("postgres"), "r1")


def test_what_redis_keeps_and_for_how_long(
    export: Export, published: Publish, redis_at: RedisServer, exports: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    client, prefix = redis_at.client(), exports["redis"]["prefix"]

    def times_to_live(run_id: str) -> set[int]:
        return {client.ttl(key) for key in client.keys(f"{prefix}:{run_id}:*")}

    export("redis", published("r1"), grace_s=100)
    assert times_to_live("r1") == {-1}, "what is served stays"
    export("redis", published("r2"), grace_s=100)
    assert all(90 <= seconds <= 100 for seconds in times_to_live("r1")), "the marker, too"
    assert times_to_live("r2") == {-1}
    monkeypatch.setattr(stores, "register_sources", registers("redis", fail_commit))
    with pytest.raises(ExportError):
        export("redis", published("r3"), unfinished_s=700)
    assert all(690 <= seconds <= 700 for seconds in times_to_live("r3")), "what failed goes by itself"
    assert times_to_live("r2") == {-1}
    assert {key.decode().split(":")[1] for key in client.keys(f"{prefix}:*")} == {"serving", "r1", "r2", "r3"}


def test_a_late_attempt_puts_no_time_to_live_on_what_is_served(
    export: Export, read: Read, published: Publish, redis_at: RedisServer, exports: dict[str, dict[str, Any]]
) -> None:
    from recsys_spark.sinks.redis_connection import RedisOptions
    from recsys_spark.sinks.redis_source import RedisWriter
    from tests.sinks.conftest import table_of

    export("redis", published("r1"))
    section = exports["redis"]
    options = RedisOptions(
        section["host"], "r1", "2026-11-22", N_USERS, section["port"],
        password_file=section["password_file"], prefix=section["prefix"],
    )  # fmt: skip
    late = table_of({"u0": [("late", 1.0)]}).combine_chunks().to_batches()
    RedisWriter(options).write(iter(late))
    assert serves(read("redis"), "r1")
    client = redis_at.client()
    assert {client.ttl(key) for key in client.keys(f"{section['prefix']}:r1:*")} == {-1}


def test_postgres_drops_what_is_over_and_nothing_a_reader_holds(
    export: Export, published: Publish, postgres_at: PostgresServer, exports: dict[str, dict[str, Any]]
) -> None:
    table = exports["postgres"]["table"]
    export("postgres", published("r1"))
    export("postgres", published("r2"))
    with postgres_at.connect(autocommit=True) as connection, postgres_at.connect() as reader:

        def kept() -> list[str]:
            return [row[0] for row in connection.execute(f"SELECT run_id FROM {table}_runs ORDER BY generation")]

        reader.execute(f"SELECT FROM {table}_lists WHERE generation = 1").fetchall()
        connection.execute(f"UPDATE {table}_runs SET superseded_at = superseded_at - interval '2 days'")
        export("postgres", published("r3"))
        assert kept() == ["r1", "r2", "r3"], "the reader's transaction holds r1"
        reader.rollback()
        export("postgres", published("r4"))
        assert kept() == ["r2", "r3", "r4"]
        assert connection.execute(f"SELECT to_regclass('{table}_lists_1')").fetchone() == (None,)


def test_an_open_transaction_sees_one_run_and_a_prepared_statement_goes_on(
    export: Export, published: Publish, postgres_at: PostgresServer, exports: dict[str, dict[str, Any]]
) -> None:
    table = exports["postgres"]["table"]
    asked = f"SELECT run_id, item_ids[1] FROM {table} WHERE user_id = %s"
    export("postgres", published("r1"))
    second = published("r2")
    with postgres_at.connect() as repeatable, postgres_at.connect(autocommit=True) as prepared:
        repeatable.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        repeatable.execute("SELECT 1").fetchone()  # the snapshot is taken before the lists of r2 are there
        for _ in range(3):
            assert prepared.execute(asked, ("u1",), prepare=True).fetchone() == ("r1", "r1-i0")
        export("postgres", second)
        assert repeatable.execute(asked, ("u1",)).fetchone() == ("r1", "r1-i0")
        assert prepared.execute(asked, ("u1",), prepare=True).fetchone() == ("r2", "r2-i0")
        repeatable.rollback()
        assert repeatable.execute(asked, ("u1",)).fetchone() == ("r2", "r2-i0")


def test_two_attempts_at_one_part_leave_its_rows_once(
    spark: SparkSession, export: Export, published: Publish, postgres_at: PostgresServer,
    exports: dict[str, dict[str, Any]],
) -> None:  # fmt: skip
    from recsys_spark.sinks.postgres_connection import PostgresOptions
    from recsys_spark.sinks.postgres_source import PostgresDataSource, PostgresWriter
    from recsys_spark.tables import RECOMMENDATIONS
    from tests.sinks.conftest import table_of

    section = exports["postgres"]
    options = PostgresOptions(
        section["host"], "serving", "r1", "2026-11-22", N_USERS, section["port"], "exporter",
        password_file=section["password_file"], table=section["table"],
    )  # fmt: skip
    writer = PostgresDataSource(options.as_texts()).writer(RECOMMENDATIONS.schema, True)
    assert isinstance(writer, PostgresWriter)
    rows = table_of(lists_of("r1")).combine_chunks().to_batches()

    def second_attempt_meanwhile() -> Iterator[Any]:
        yield rows[0].slice(0, 10)
        assert writer.write(iter(rows)).users == N_USERS
        yield rows[0].slice(10)

    assert writer.write(second_attempt_meanwhile()).users == N_USERS
    assert writer.write(iter(rows)).users == N_USERS, "and a third one, afterwards"
    with postgres_at.connect() as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {section['table']}_lists_1").fetchone()  # type: ignore[misc]
    assert count == N_USERS


def test_of_two_exports_at_once_the_last_to_finish_is_served(
    export: Export, read: Read, published: Publish, redis_at: RedisServer, exports: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from recsys_spark.sinks import redis_connection, redis_source

    export("redis", published("r1"))
    export("redis", published("r2"))
    section, client = exports["redis"], redis_at.client()
    options = redis_connection.RedisOptions(
        section["host"], "r1", "2026-11-22", N_USERS, section["port"],
        password_file=section["password_file"], prefix=section["prefix"],
    )  # fmt: skip
    pointer, asked, tries = f"{section['prefix']}:serving", redis_source.current_serving, []

    def moved_meanwhile(asking: Any, given: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            client.set(pointer, client.get(pointer))
        return asked(asking, given)

    redis_source._reopen(redis_connection.connect(options), options)
    monkeypatch.setattr(redis_source, "current_serving", moved_meanwhile)
    redis_source.RedisWriter(options).commit([redis_source.WrittenUsers(N_USERS)])
    assert len(tries) == 2, "the pointer was watched"
    assert serves(read("redis"), "r1")
    assert client.ttl(f"{section['prefix']}:r2:0") > 0


def test_a_rate_limit_holds_over_all_tasks(spark: SparkSession, export: Export, published: Publish) -> None:
    import time

    storage = published("r1")
    started = time.monotonic()
    export("redis", storage, rate_limit=30)
    assert time.monotonic() - started > 0.8 * (N_USERS - 10) / 30, "60 users at 30 a second"


def registers(kind: str, disturb: Callable[[str], None]) -> Callable[[SparkSession], None]:
    return lambda spark: spark.dataSource.register(disturbed(kind, disturb))


def _with_twin(storage: Any) -> Any:
    from pyspark.sql import functions as F

    lists = stores.lists_of(storage)
    return lists.withColumn("user_id", F.when(F.col("user_id") == "u1", "u0").otherwise(F.col("user_id")))
