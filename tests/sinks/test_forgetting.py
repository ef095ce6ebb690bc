"""A user who is forgotten is in no store any more, in what it serves or in what it keeps."""

from __future__ import annotations

import gzip
import re
import shutil
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
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.feed_forgetting import without_user
from recsys_spark.sinks.stores import open_store
from recsys_spark.storage.forgotten import forget_user
from recsys_spark.storage.run_storage import RunStorage
from tests.night.catalogue import Outcome, run_cli
from tests.sinks.conftest import N_USERS, Publish, lake_table, lists_of, rounded, settings_of
from tests.sinks.servers import PostgresServer, RedisServer, free_port

pytestmark = pytest.mark.filterwarnings("ignore")
USER = 'zoë "of\nthe" hill'  # whom no other test has, and whose name takes care to find in JSON and in CSV
GONE = re.compile(b'"delete",.{0,40}?hill', re.DOTALL)  # a line that says so
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
        return sum(b"hill" in GONE.sub(b"", text) for text in texts)

    def in_lake() -> int:
        paths = Path(stores["lake"]["warehouse"]).rglob("*.parquet")
        rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
        return sum(row["user_id"] == USER and row["item_ids"] is not None for row in rows)

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


@pytest.mark.slow
def test_no_store_holds_them_in_any_run(
    published: Publish, stores: Sections, root: str, held: Held, read: Callable[[str], Reader], forget: Any
) -> None:
    for run_id in ("r1", "r2"):
        export(published(run_id, with_user(run_id)), stores, root)
    assert all(held(name) >= 2 for name in stores), "or the search would find nothing in any case"
    served = {name: read(name).run() for name in stores}
    outcome = forget()
    assert outcome.code == 0, outcome.err
    removed = {  # in the lake the served list and its change
        "redis": 2,
        "postgres": 2,
        "jsonl": 3,
        "csv": 3,
        "lake": 2,
    }
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


@pytest.mark.slow
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
    def found(content: bytes, user_id: str, is_csv: bool) -> bytes | None:
        packed = without_user(gzip.compress(content), user_id, is_csv, True)
        plain = without_user(content, user_id, is_csv, False)
        assert (None if packed is None else gzip.decompress(packed)) == plain
        return plain

    lines = [
        b'{"user_id":"a","item_ids":["\xc3\xa9"],"scores":[0.10]}\n',
        b'{"user_id":"b","item_ids":[],"scores":[]}\n',
    ]
    assert found(b"".join(lines), "b", False) == lines[0]
    assert found(b"".join(lines), "c", False) is None
    head, quoted, other = b'"user_id","rank"\n', b'"a ""b""\r\nc","1"\n', b'"a","1"\n'
    assert found(head + quoted + other, 'a "b"\r\nc', True) == head + other
    assert found(head + quoted + b"\n" + other + other, "a", True) == head + quoted + b"\n"


def test_a_change_becomes_one_that_takes_the_list_away() -> None:
    gone = b'{"op":"delete","user_id":"\xc3\xa9"}\n'
    change = b'{"op":"upsert","user_id":"\xc3\xa9","item_ids":[],"scores":[]}\n'
    assert without_user(change, "\u00e9", False, False) == gone
    assert without_user(gone, "\u00e9", False, False) is None
    head, row = b'"op","user_id","rank","item_id"\n', b'"upsert","a","1","x"\n"upsert","a","2","y"\n'
    assert without_user(head + row, "a", True, False) == head + b'"delete","a","0",""\n'


def test_what_was_never_finished_goes_and_is_not_exported(
    published: Publish, stores: Sections, root: str, held: Held, forget: Any
) -> None:
    storage = published("r1", with_user("r1"))
    export(storage, stores, root)
    for kind in ("jsonl", "csv"):
        folder = Path(stores[kind]["path"])
        left = folder / "full/run_id=r0/_temporary/0" / next((folder / "full/run_id=r1").glob("part-*")).name
        left.parent.mkdir(parents=True)
        left.write_bytes(b"hill")
    assert forget().code == 0
    assert not list(Path(stores["jsonl"]["path"]).rglob("_temporary"))
    assert {name: held(name) for name in stores} == dict.fromkeys(stores, 0)


@pytest.mark.slow
def test_files_that_were_written_before_are_not_taken_for_those_of_a_later_export(
    published: Publish, stores: Sections, root: str, read: Callable[[str], Reader]
) -> None:
    """Where forgetting did not reach the store, an export of an earlier run must not serve what it finds there."""
    first, second = published("r1", with_user("r1")), published("r2")
    for storage in (first, second):
        export(storage, stores, root)
    forget_user(first.filesystem, root, USER)
    with pytest.raises(ExportError, match=r"has 60 users, 60 were written and Redis at .* holds 61"):
        export(first, {"redis": stores.pop("redis")}, root)
    export(first, stores, root)
    for name in stores:
        assert read(name).run().run_id == "r1"  # type: ignore[union-attr]
        assert read(name).recommend(USER) is None, name


def test_a_reader_at_work_notices(published: Publish, stores: Sections, root: str, forget: Any) -> None:
    export(published("r1", with_user("r1")), {"jsonl": stores["jsonl"]}, root)
    reader = files.RecommendationReader(stores["jsonl"]["path"])
    assert reader.recommend(USER) is not None
    assert forget().code == 0
    assert reader.recommend(USER) is None


@pytest.mark.parametrize("warehouse", ["file://{}", "{}/../linked"])
def test_the_lake_keeps_what_it_needs_by_another_name_too(
    warehouse: str, published: Publish, lake: dict[str, Any], root: str, forget: Any, tmp_path: Path
) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "lake")
    for run_id in ("r1", "r2"):
        export(published(run_id, with_user(run_id)), {"lake": lake}, root)
    outcome = forget(lake={"warehouse": warehouse.format(lake["warehouse"])})
    assert outcome.code == 0, outcome.err
    assert "lake: 1 of their lists removed" in outcome.out
    rows = lake_table(lake).scan().to_arrow().to_pylist()
    assert {row["user_id"] for row in rows} == set(lists_of("r2"))
    assert (Path(lake["warehouse"]) / "recsys_spark-recsys.recommendations/_LEASE").is_dir()


def test_the_lake_keeps_the_history_of_others(published: Publish, lake: dict[str, Any], root: str, forget: Any) -> None:
    lake = {**lake, "delta": True}
    for run_id in ("r1", "r2"):
        export(published(run_id), {"lake": lake}, root)
    before = [snapshot.snapshot_id for snapshot in lake_table(lake).metadata.snapshots]
    assert forget().code == 0
    assert [snapshot.snapshot_id for snapshot in lake_table(lake).metadata.snapshots] == before
    lake_table(lake).manage_snapshots().create_tag(before[-1], "mine").commit()
    assert forget().code == 0, "a tag that holds nobody is no fault"
    shutil.rmtree(Path(root) / "_FORGOTTEN")  # or the user would be in no export any more
    export(published("r3", with_user("r3")), {"lake": lake}, root)
    head = lake_table(lake).current_snapshot()
    assert head is not None
    lake_table(lake).manage_snapshots().create_tag(head.snapshot_id, "theirs").commit()
    refused = forget()
    assert refused.code == 1
    assert "theirs still holds lists of the user: drop it" in refused.err.replace("\n", " ")
    rows = lake_table(lake, "recsys.recommendations_changes").scan().to_arrow().to_pylist()
    assert {row["op"] for row in rows if row["user_id"] == USER} == {"delete"}, "the other table forgets all the same"
    lake_table(lake).manage_snapshots().remove_tag("theirs").commit()
    assert forget().code == 0
    paths = Path(lake["warehouse"]).rglob("*.parquet")
    rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
    assert {row.get("op") for row in rows if row["user_id"] == USER} == {"delete"}, "only what says so has the id"


def test_a_folder_of_something_else_is_left_alone(stores: Sections, forget: Any) -> None:
    folder = Path(stores["jsonl"]["path"])
    (folder / "full/run_id=r1").mkdir(parents=True)
    (folder / "full/run_id=r1/part-0.json").write_text("mine")
    (folder / "_CURRENT").write_text('{"other": 1}')
    refused = forget()
    assert refused.code == 1
    assert "is not the pointer of a feed" in refused.err
    assert (folder / "full/run_id=r1/part-0.json").read_text() == "mine"


def test_an_id_is_printed_as_it_is(spark: SparkSession, root: str, published: Publish, tmp_path: Path) -> None:
    published("r1")
    path = tmp_path / "settings.toml"
    events = {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}}
    path.write_bytes(tomli_w.dumps({"storage": {"root": root}, "events": events}).encode())
    outcome = run_cli(spark, "forget", "--settings", str(path), "--user", "[/x]")
    assert outcome.code == 0, outcome.err
    assert "user '[/x]' is forgotten" in outcome.out
    refused = run_cli(spark, "forget", "--settings", str(path), "--user", "a\udcff")
    assert refused.code == 2
    assert "is not UTF-8: no user has it" in refused.err
