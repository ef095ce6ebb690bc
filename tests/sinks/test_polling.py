"""While runs are published one after the other, readers never see a mix of two, a gap or an error.

Five publications; `RECSYS_SPARK_SOAK=50` (`make soak`) makes fifty.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from rich.console import Console

from recsys_spark.sinks import files, iceberg, postgres, redis
from recsys_spark.sinks.contract import Reader
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.stores import open_store
from tests.sinks.conftest import N_USERS, Publish, lake_table, lists_of, settings_of
from tests.sinks.servers import PostgresServer, RedisServer

PUBLICATIONS = int(os.environ.get("RECSYS_SPARK_SOAK", "5"))
RUNS = [f"r{number:03}" for number in range(PUBLICATIONS + 1)]


class Poller(threading.Thread):
    """Asks again and again until it is stopped, and keeps what was wrong."""

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        super().__init__(daemon=True)
        self._ask, self._stopped = ask, threading.Event()
        self.problems: list[str] = []
        self.seen: list[str] = []

    def run(self) -> None:
        while not self._stopped.wait(0.001) and len(self.problems) < 5:
            try:
                runs = self._ask()
            except Exception as error:
                self.problems.append(f"failed: {error!r}")
                continue
            if runs != sorted(runs) or (self.seen and runs[0] < self.seen[-1]):
                self.problems.append(f"went back: {self.seen[-1:]} {runs}")
            self.seen += runs

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def by_user(reader: Reader) -> Callable[[], list[str]]:
    """The runs of some users' lists, one after the other; raises when a list is not whole or of two runs."""

    def ask() -> list[str]:
        served = reader.run()
        assert served is not None
        found = [served.run_id]
        for user in ("u0", "u1", "u2", f"u{N_USERS - 1}"):
            items = reader.recommend(user)
            assert items, f"{user} has no list"
            (run_id,) = {item.partition("-")[0] for item, _ in items}
            assert len(items) == len(lists_of(run_id)[user])
            found.append(run_id)
        return found

    return ask


def in_one_statement(connection: psycopg.Connection, view: str) -> Callable[[], list[str]]:
    """All lists at once, by a prepared statement."""

    def ask() -> list[str]:
        rows = connection.execute(f"SELECT run_id, item_ids FROM {view}", prepare=True).fetchall()
        assert len(rows) == N_USERS
        (run_id,) = {run_id for run_id, _ in rows} | {items[0].partition("-")[0] for _, items in rows}
        return [run_id]

    return ask


def in_one_transaction(connection: psycopg.Connection, view: str) -> Callable[[], list[str]]:
    """Two looks in a transaction that keeps its snapshot."""

    def ask() -> list[str]:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            asked = f"SELECT item_ids[1] FROM {view} WHERE user_id = %s"
            rows = [connection.execute(asked, (user,)).fetchone() for user in ("u0", "u1")]
        (run_id,) = {str(row[0]).partition("-")[0] for row in rows if row is not None}
        assert None not in rows
        return [run_id]

    return ask


@contextmanager
def polled(*asks: Callable[[], list[str]]) -> Iterator[list[Poller]]:
    pollers = [Poller(ask) for ask in asks]
    for poller in pollers:
        poller.start()
    try:
        yield pollers
    finally:
        for poller in pollers:
            poller.stop()


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["redis", "postgres", "jsonl", "csv", "iceberg"])
def test_readers_see_one_run_at_a_time(
    kind: str, published: Publish, exports: dict[str, dict[str, Any]], lake: dict[str, Any], root: str,
    redis_at: RedisServer, postgres_at: PostgresServer,
) -> None:  # fmt: skip
    section = lake if kind == "iceberg" else exports[kind]
    settings = settings_of(root, {kind: {**section, **({"grace_s": 60} if kind == "redis" else {})}})

    def export(run_id: str) -> None:
        export_run(published(run_id), open_store(settings.exports[kind]), kind, Console(quiet=True))

    export(RUNS[0])
    with (
        postgres_at.connect(autocommit=True) as first,
        postgres_at.connect(autocommit=True) as second,
        postgres_at.connect(autocommit=True) as third,
    ):
        table = exports["postgres"]["table"]
        asks = {
            "redis": [
                by_user(redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"], refresh_s=pause))
                for pause in (0, 0.3)
            ],
            "postgres": [
                by_user(postgres.RecommendationReader(first, table=table)),
                in_one_statement(second, table),
                in_one_transaction(third, table),
            ],
        }.get(kind, [])
        if kind == "iceberg":
            asks = [by_user(iceberg.RecommendationReader(lake_table(lake)))]
        elif not asks:
            asks = [by_user(files.RecommendationReader(exports[kind]["path"]))]
        with polled(*asks) as pollers:
            for run_id in RUNS[1:]:
                export(run_id)
    for poller in pollers:
        assert poller.problems == []
        assert len(set(poller.seen)) >= PUBLICATIONS - 1, "the reader must have met nearly every run"
        assert len(poller.seen) > 10 * PUBLICATIONS


def test_a_poller_notices_a_mix_and_a_gap() -> None:
    answers = iter([["r1", "r1"], ["r2", "r1"], ["r0"], KeyError("u1")])

    def ask() -> list[str]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    poller = Poller(ask)
    poller.start()
    poller.join(5)
    assert [problem.partition(":")[0] for problem in poller.problems[:3]] == ["went back", "went back", "failed"]
