"""`recsys-spark export` and the delivery of a night, as a user sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.errors import RecsysError
from recsys_spark.sinks import redis
from recsys_spark.sinks.contract import Served
from recsys_spark.sinks.exporting import deliver
from recsys_spark.storage.pointer import point_to
from recsys_spark.storage.runs import start_run
from tests.night.catalogue import Outcome, run_cli
from tests.sinks.conftest import DAY, N_USERS, Publish, lists_of, rounded, settings_of
from tests.sinks.servers import HOST, RedisServer, free_port

Cli = Callable[..., Outcome]


@pytest.fixture
def cli(spark: SparkSession, root: str, exports: dict[str, dict[str, Any]], tmp_path: Path) -> Cli:
    """Runs `recsys-spark export` with all exports of the tests in the settings."""

    def go(*arguments: str, **sections: dict[str, Any]) -> Outcome:
        events = {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}}
        content = {"storage": {"root": root}, "events": events, "exports": {**exports, **sections}}
        path = tmp_path / "settings.toml"
        path.write_bytes(tomli_w.dumps(content).encode())
        return run_cli(spark, "export", "--settings", str(path), *arguments)

    return go


@pytest.mark.parametrize("kind", ["redis", "postgres", "jsonl"])
def test_the_current_run_and_then_nothing_to_do(kind: str, cli: Cli, published: Publish) -> None:
    published("r1")
    published("r2")
    first, again = cli("--to", kind), cli("--to", kind)
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert first.out.startswith(f"{kind} serves run r2 of 2026-11-23: {N_USERS} users in ")
    assert again.out == f"{kind} serves run r2 of 2026-11-23 already: nothing to do\n"
    back = cli("--to", kind, "--run-id", "r1")
    assert back.out.startswith(f"{kind} serves run r1 of 2026-11-22: ")


def test_nothing_new_is_written_for_the_same_run(
    cli: Cli, published: Publish, redis_at: RedisServer, exports: dict[str, dict[str, Any]]
) -> None:
    published("r1")
    assert cli("--to", "redis").code == 0
    before = redis_at.client().info("commandstats")
    assert cli("--to", "redis").code == 0
    after = redis_at.client().info("commandstats")
    for command in ("hset", "set", "expire", "exec", "evalsha"):
        assert after[f"cmdstat_{command}"]["calls"] == before[f"cmdstat_{command}"]["calls"], command


def test_wrong_names_and_runs_end_with_2(cli: Cli, published: Publish, spark: SparkSession, root: str) -> None:
    published("r1")
    start_run(spark, root, DAY, "digest", 7, run_id="unfinished")
    unknown = cli("--to", "cache")
    assert (unknown.code, unknown.err) == (
        2, "error: there is no export 'cache'; the settings have redis, postgres, jsonl, csv\n",
    )  # fmt: skip
    missing = cli("--to", "jsonl", "--run-id", "r9")
    assert missing.code == 2
    assert missing.err.startswith("error: there is no run r9 under ")
    early = cli("--to", "jsonl", "--run-id", "unfinished")
    assert (early.code, early.err) == (
        2, "error: run unfinished is not published: only an audited, published run can be exported\n",
    )  # fmt: skip


def test_nothing_is_published_yet(cli: Cli, root: str) -> None:
    outcome = cli("--to", "jsonl")
    assert (outcome.code, outcome.err) == (
        1, f"error: nothing is published under {root} yet: run `recsys-spark run` first\n",
    )  # fmt: skip


def test_a_server_that_is_away_and_a_wrong_password(
    cli: Cli, published: Publish, exports: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    published("r1")
    monkeypatch.setattr("recsys_spark.sinks.pacing._FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("WRONG_PASSWORD", "hunter2")
    changes = {"password_env": "WRONG_PASSWORD"}
    sections = {kind: {**exports[kind], **changes} for kind in ("redis", "postgres")}
    for section in sections.values():
        del section["password_file"]
    away = {"away": {"kind": "redis", "host": HOST, "port": free_port()}}
    for name, reason in {
        "away": "cannot be reached: Error 111 connecting to 127.0.0.1",
        "redis": "refused the default user: invalid username-password pair or user is disabled; look at user and "
        "password_env = 'WRONG_PASSWORD'",
        "postgres": 'password authentication failed for user "exporter"; look at user, password_env, password_file',
    }.items():
        outcome = cli("--to", name, **sections, **away)
        assert outcome.code == 1
        (line,) = outcome.err.splitlines()
        assert reason in line
        assert line.endswith(
            "What it served before, it still serves. After mending the cause: "
            f"recsys-spark export --settings FILE --to {name}"
        )
        assert "hunter2" not in outcome.err + outcome.out


def test_a_night_delivers_and_says_what_it_could_not(
    published: Publish, exports: dict[str, dict[str, Any]], root: str, redis_at: RedisServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("recsys_spark.sinks.pacing._FIRST_PAUSE_S", 0.001)
    away = {"kind": "redis", "host": HOST, "port": free_port(), "deliver": True}
    wanted = {"away": away, "redis": {**exports["redis"], "deliver": True}, "jsonl": exports["jsonl"]}
    storage = published("r1")
    with pytest.raises(RecsysError) as failure:
        deliver(storage, settings_of(root, wanted), Console(quiet=True))
    assert failure.value.exit_code == 4
    message = str(failure.value)
    assert message.startswith(
        "run r1 is published and current, but was not delivered to away, which serves what was there before. "
        "away: Redis"
    )
    assert message.endswith("To finish: recsys-spark export --settings FILE --run-id r1 --to away")
    served = redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"]).run()
    assert served is not None
    assert served.run_id == "r1", "the others are delivered all the same"
    assert not (tmp_path / "jsonl").exists(), "only where deliver = true"


def test_a_run_that_readers_are_not_pointed_to_is_not_delivered(
    published: Publish, exports: dict[str, dict[str, Any]], root: str, tmp_path: Path
) -> None:
    storage, newer = published("r1"), published("r2")
    settings = settings_of(root, {"jsonl": {**exports["jsonl"], "deliver": True}})
    deliver(storage, settings, Console(quiet=True))
    assert not (tmp_path / "jsonl").exists()
    point_to(newer.filesystem, storage.run)
    deliver(storage, settings, Console(quiet=True))
    assert (tmp_path / "jsonl" / "full" / "run_id=r1").is_dir()


def test_a_rollback_takes_the_stores_along(
    spark: SparkSession, published: Publish, exports: dict[str, dict[str, Any]], root: str, redis_at: RedisServer,
    tmp_path: Path,
) -> None:  # fmt: skip
    first, second = published("r1"), published("r2")
    wanted = {"redis": {**exports["redis"], "deliver": True}, "jsonl": exports["jsonl"]}
    deliver(second, settings_of(root, wanted), Console(quiet=True))
    reader = redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"], refresh_s=0)
    assert reader.run() == Served("r2", second.run.run_date)
    content = {
        "storage": {"root": root}, "exports": wanted,
        "events": {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}},
    }  # fmt: skip
    path = tmp_path / "rollback.toml"
    path.write_bytes(tomli_w.dumps(content).encode())
    outcome = run_cli(spark, "rollback", "--settings", str(path))
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] == f"readers now see run r1 of {first.run.run_date}"
    assert "redis serves run r1 of" in outcome.out
    assert reader.run() == Served("r1", first.run.run_date)
    assert rounded(reader.recommend("u2")) == rounded(lists_of("r1")["u2"])
    assert not (tmp_path / "jsonl").exists(), "only where deliver = true"


def test_hostile_ids_reach_every_store(
    cli: Cli, published: Publish, redis_at: RedisServer, exports: dict[str, dict[str, Any]]
) -> None:
    hostile = {"a,b": [("=1+1", 0.5)], 'q"uote': [("new\nline", 0.25)], "é😀": [("\\", 1.0), ("tab\t", 0.5)]}
    published("r1", hostile)
    for kind in ("redis", "postgres"):
        assert cli("--to", kind).code == 0
    reader = redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"])
    assert {user: reader.recommend(user) for user in hostile} == hostile
    assert lists_of("r1").keys().isdisjoint(hostile)
