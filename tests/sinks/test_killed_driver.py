"""The driver is killed at each phase of an export; the run before is served, and the next export completes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recsys_spark.sinks import files, postgres, redis
from recsys_spark.sinks.contract import Reader
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.stores import open_store
from tests.sinks.conftest import Publish, lists_of, rounded, settings_of
from tests.sinks.servers import PostgresServer, RedisServer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "moments",
    [
        {"redis": "first batch", "postgres": "first batch", "jsonl": "_DONE.json"},
        {"redis": "commit", "postgres": "commit", "jsonl": "_CURRENT"},
        {"redis": "served", "postgres": "served"},
    ],
    ids=["while writing", "before the flip", "after the flip"],
)
def test_a_killed_driver(
    moments: dict[str, str], published: Publish, exports: dict[str, dict[str, Any]], root: str, tmp_path: Path,
    redis_at: RedisServer, postgres_at: PostgresServer,
) -> None:  # fmt: skip
    settings, quiet = settings_of(root, exports), Console(quiet=True)
    first = published("r1")
    for kind in moments:
        export_run(first, open_store(settings.exports[kind]), kind, quiet)
    second = published("r2")
    command = [sys.executable, "-m", "tests.sinks.killed_driver", root, "r2", str(tmp_path)]
    given = json.dumps({"moments": moments, "exports": exports})
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert all((tmp_path / kind).exists() for kind in moments), done.stdout + done.stderr
    with postgres_at.connect(autocommit=True) as connection:
        readers: dict[str, Reader] = {
            "redis": redis.RecommendationReader(redis_at.client(), exports["redis"]["prefix"], 0),
            "postgres": postgres.RecommendationReader(connection, table=exports["postgres"]["table"]),
            "jsonl": files.RecommendationReader(exports["jsonl"]["path"]),
        }
        for kind, moment in moments.items():
            assert serves(readers[kind], "r2" if moment == "served" else "r1"), kind
            (tmp_path / "go-on").touch()  # what is left of the driver writes while the next export does
            export_run(second, open_store(settings.exports[kind]), kind, quiet)
            assert serves(readers[kind], "r2"), kind
        time.sleep(0.5)
        assert all(serves(readers[kind], "r2") for kind in moments)


def serves(reader: Reader, run_id: str) -> bool:
    served = reader.run()
    expected = {user: rounded(found) for user, found in lists_of(run_id).items()}
    return (
        served is not None
        and served.run_id == run_id
        and {u: rounded(reader.recommend(u)) for u in expected} == expected
    )
