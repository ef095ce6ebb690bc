"""A user who is forgotten is in no store any more, in what it serves or in what it keeps."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tomli_w
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.sinks import files, iceberg, postgres, redis
from recsys_spark.sinks.contract import Reader
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.lines import without_user
from recsys_spark.sinks.stores import open_store
from recsys_spark.storage.forgotten import forget_user
from recsys_spark.storage.run_storage import RunStorage
from tests.night.catalogue import Outcome, run_cli
from tests.sinks.conftest import N_USERS, Publish, lake_table, lists_of, rounded, settings_of
from tests.sinks.servers import PostgresServer, RedisServer, free_port

pytestmark = pytest.mark.filterwarnings("ignore")
USER = 'zoë "of\nthe" hill'  # whom no other test has, and whose name takes care to find in JSON and in CSV
Sections = dict[str, dict[str, Any]]
Held = Callable[[str], int]


@pytest.fixture
def stores(exports: Sections, lake: dict[str, Any]) -> Sections:
    """Every kind of store, feeds with deltas, one of them packed."""
    feeds = {"jsonl": exports["jsonl"], "csv": {**exports["csv"], "compression": "gzip"}, "lake": lake}
    return {**exports, **{name: {**section, "delta": True} for name, section in feeds.items()}}


@pytest.fixture
def held(stores: Sections, redis_at: RedisServer, postgres_at: PostgresServer) -> Held:
    """How many lists of the user a store holds, in all that it keeps."""

    def in_redis() -> int:
        client = redis_at.client()
        keys = client.scan_iter(f"{stores['redis']['prefix']}:*", _type="hash")
        return sum(client.hexists(key, USER) for key in keys)

    def in_postgres() -> int:
        with postgres_at.connect() as connection:
            found = connection.execute("SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relname LIKE %s",
                (f"{stores['postgres']['table']}_lists%",)).fetchall()  # fmt: skip
            counts = [
                connection.execute(f"SELECT count(*) FROM {table} WHERE user_id = %s", (USER,)) for (table,) in found
            ]
            return sum(row.fetchone()[0] for row in counts)  # type: ignore[index]

    def in_files(kind: str) -> int:
        paths = [
            path for path in Path(stores[kind]["path"]).rglob("*.*") if path.is_file() and path.name[0] not in "._"
        ]
        texts = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in paths]
        return sum(b"hill" in text for text in texts)

    def in_lake() -> int:
        paths = Path(stores["lake"]["warehouse"]).rglob("*.parquet")
        return sum(pq.read_table(path, partitioning=None).column("user_id").to_pylist().count(USER) for path in paths)

    counted: Mapping[str, Callable[[], int]] = {
        "redis": in_redis,
        "postgres": in_postgres,
        "jsonl": lambda: in_files("jsonl"),
        "csv": lambda: in_files("csv"),
        "lake": in_lake,
    }
    return lambda name: counted[name]()


@pytest.fixture
def read(stores: Sections, redis_at: RedisServer, postgres_at: PostgresServer) -> Iterator[Callable[[str], Reader]]:
    def reader(name: str) -> Reader:
        if name == "redis":
            return redis.RecommendationReader(redis_at.client(), stores["redis"]["prefix"], refresh_s=0)
        if name == "postgres":
            return postgres.RecommendationReader(connection, table=stores["postgres"]["table"])
        if name == "lake":
            return iceberg.RecommendationReader(lake_table(stores["lake"]))
        return files.RecommendationReader(stores[name]["path"])

    with postgres_at.connect(autocommit=True) as connection:
        yield reader


@pytest.fixture
def forget(spark: SparkSession, root: str, stores: Sections, tmp_path: Path) -> Callable[..., Outcome]:
    def go(**changes: dict[str, Any]) -> Outcome:
        events = {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}}
        sections = {name: {**section, **changes.get(name, {})} for name, section in stores.items()}
        path = tmp_path / "settings.toml"
        path.write_bytes(tomli_w.dumps({"storage": {"root": root}, "events": events, "exports": sections}).encode())
        return run_cli(spark, "forget", "--settings", str(path), "--user", USER)

    return go


def export(storage: RunStorage, stores: Sections, root: str) -> None:
    for name, section in settings_of(root, stores).exports.items():
        export_run(storage, open_store(section), name, Console(quiet=True))


def with_user(run_id: str) -> dict[str, Any]:
    return {**lists_of(run_id), USER: [(f"{run_id}-tea", 0.5)]}


def changes_of_user(lake: dict[str, Any]) -> list[str]:
    rows = lake_table(lake, "recsys.recommendations_changes").scan().to_arrow().to_pylist()
    return [row["op"] for row in rows if row["user_id"] == USER]


def test_no_store_holds_them_in_any_run(
    published: Publish, stores: Sections, root: str, held: Held, read: Callable[[str], Reader], forget: Any
) -> None:
    for run_id in ("r1", "r2"):
        export(published(run_id, with_user(run_id)), stores, root)
    assert all(held(name) >= 2 for name in stores), "or the search would find nothing in any case"
    served = {name: read(name).run() for name in stores}
    outcome = forget()
    assert outcome.code == 0, outcome.err
    removed = {"redis": 2, "postgres": 2, "jsonl": 3, "csv": 3, "lake": 2}  # feeds: two runs and a change
    for name, count in removed.items():
        assert f"{name}: {count} of their lists removed" in outcome.out
    assert {name: held(name) for name in stores} == dict.fromkeys(stores, 0)
    expected = {user: rounded(found) for user, found in lists_of("r2").items()}
    for name in stores:
        reader = read(name)
        assert reader.run() == served[name]
        assert reader.recommend(USER) is None
        assert {user: rounded(reader.recommend(user)) for user in expected} == expected
    again = forget()
    assert again.code == 0
    assert again.out.count(": 0 of their lists removed") == len(stores)


def test_a_run_that_holds_them_is_exported_without_them(
    spark: SparkSession, published: Publish, stores: Sections, root: str, read: Callable[[str], Reader]
) -> None:
    storage = published("r1", with_user("r1"))
    forget_user(storage.filesystem, root, USER)
    export(storage, stores, root)
    for name in stores:
        assert read(name).recommend(USER) is None
        assert rounded(read(name).recommend("u1")) == rounded(lists_of("r1")["u1"])


def test_the_next_run_tells_consumers_of_changes(
    published: Publish, stores: Sections, root: str, forget: Any, read: Callable[[str], Reader]
) -> None:
    export(published("r1", with_user("r1")), stores, root)
    assert forget().code == 0
    export(published("r2"), stores, root)
    for name in ("jsonl", "csv"):
        folder = Path(stores[name]["path"])
        lists, _ = files.apply_delta(
            {USER: [("r1-tea", 0.5)], **lists_of("r1")}, "r1", folder / "delta/run_id=r2/base=r1"
        )
        assert USER not in lists
        assert len(lists) == N_USERS
    assert changes_of_user(stores["lake"]) == ["delete"]
    assert forget().code == 0
    assert changes_of_user(stores["lake"]) == ["delete"], "or a consumer would keep them"
    export(published("r3"), stores, root)
    assert all(read(name).run().run_id == "r3" for name in stores)  # type: ignore[union-attr]


def test_a_store_that_is_away_is_named_and_the_others_forget(
    published: Publish, stores: Sections, root: str, held: Held, forget: Any
) -> None:
    export(published("r1", with_user("r1")), stores, root)
    outcome = forget(redis={"port": free_port()})
    assert outcome.code == 1
    assert "redis may still hold them. redis: Redis at 127.0.0.1:" in outcome.err.replace("\n", " ")
    assert "is forgotten from now on" in outcome.out
    assert {name: held(name) for name in stores} == {**dict.fromkeys(stores, 0), "redis": 1}
    assert forget().code == 0
    assert held("redis") == 0


def test_generations_of_any_number_of_buckets_are_searched(
    redis_at: RedisServer, forget: Any, stores: Sections
) -> None:
    client, prefix = redis_at.client(), stores["redis"]["prefix"]
    for power in range(redis.MOST_BUCKETS.bit_length()):
        generation = redis.Generation(prefix, f"r{power}", 2**power)
        client.hset(generation.key(USER), USER, "[[],[]]")
    client.hset(f"{prefix}:other:r1:0", USER, "of an export whose prefix starts the same")
    client.set(f"{prefix}:r99:0", "no hash")
    outcome = forget()
    assert f"redis: {redis.MOST_BUCKETS.bit_length()} of their lists removed" in outcome.out
    assert client.hexists(f"{prefix}:other:r1:0", USER)


def test_lines_that_stay_are_the_same_bytes() -> None:
    lines = [
        b'{"user_id":"a","item_ids":["\xc3\xa9"],"scores":[0.10]}\n',
        b'{"user_id":"b","item_ids":[],"scores":[]}\n',
    ]
    assert without_user(b"".join(lines), "part-0.json", "b") == lines[0]
    assert without_user(b"".join(lines), "part-0.json", "c") is None
    head, quoted, other = b'"user_id","rank"\n', b'"a ""b""\r\nc","1"\n', b'"a","1"\n'
    assert without_user(head + quoted + other, "part-0.csv", 'a "b"\r\nc') == head + other
    assert without_user(head + quoted + other, "part-0.csv", "a") == head + quoted
    gone = b'{"op":"delete","user_id":"a"}\n'
    assert without_user(gone, "part-0.json", "a") is None
