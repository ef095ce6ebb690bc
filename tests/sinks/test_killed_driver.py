"""The driver is killed at each phase of an export; the run before is served, and the next export completes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from recsys_spark.sinks import files, postgres, redis
from recsys_spark.sinks.contract import Reader
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.stores import open_store
from tests.sinks.conftest import Publish, lists_of, rounded, settings_of
from tests.sinks.servers import PostgresServer, RedisServer


@pytest.mark.parametrize(
    ("kind", "moment", "is_served"),
    [
        ("redis", "first batch", False),
        ("redis", "commit", False),
        ("redis", "served", True),
        ("postgres", "first batch", False),
        ("postgres", "commit", False),
        ("jsonl", "_DONE.json", False),
        ("jsonl", "_CURRENT", False),
    ],
)
def test_a_killed_driver(
    kind: str, moment: str, is_served: bool, published: Publish, exports: dict[str, dict[str, Any]], root: str,
    redis_at: RedisServer, postgres_at: PostgresServer,
) -> None:  # fmt: skip
    settings = settings_of(root, {kind: exports[kind]})
    store, quiet = open_store(settings.exports[kind]), Console(quiet=True)
    export_run(published("r1"), store, kind, quiet)
    second = published("r2")
    command = [sys.executable, "-m", "tests.sinks.killed_driver", root, "r2", kind, moment]
    done = subprocess.run(command, input=json.dumps({kind: exports[kind]}), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    with postgres_at.connect(autocommit=True) as connection:
        readers: dict[str, Callable[[], Reader]] = {
            "redis": lambda: redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"], 0),
            "postgres": lambda: postgres.RecommendationReader(connection, table=exports["postgres"]["table"]),
            "jsonl": lambda: files.RecommendationReader(exports["jsonl"]["path"]),
        }
        reader = readers[kind]()
        if is_served:
            _wait_for(lambda: serves(reader, "r2"))
        else:
            assert serves(reader, "r1")
        export_run(second, store, kind, quiet)
        assert serves(reader, "r2")
        time.sleep(0.6)  # what the dead driver's workers were about to do, they have done
        assert serves(reader, "r2")


def serves(reader: Reader, run_id: str) -> bool:
    served = reader.run()
    expected = {user: rounded(found) for user, found in lists_of(run_id).items()}
    return (
        served is not None
        and served.run_id == run_id
        and {u: rounded(reader.recommend(u)) for u in expected} == expected
    )


def _wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)
