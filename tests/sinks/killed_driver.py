"""A driver that is killed at a chosen moment of an export: `python -m tests.sinks.killed_driver ROOT RUN KIND MOMENT`.

The sections of the exports come as JSON on standard input. Moments of servers: those of `disturbed`; of files: the
ending of the path that would be written next.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.sinks import stores
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.stores import open_store
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.runs import open_run
from tests.conftest import SPARK_CONF
from tests.sinks.conftest import settings_of
from tests.sinks.disturbed import SOURCES, disturbed, kill_driver_at


def main() -> None:
    root, run_id, kind, moment = sys.argv[1:]
    settings = settings_of(root, json.load(sys.stdin))
    builder = SparkSession.builder.master("local[2,4]")
    for key, value in {**SPARK_CONF, "spark.driver.memory": "512m"}.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    if kind in SOURCES:
        source = disturbed(kind, kill_driver_at(moment, os.getpid()))
        stores.register_sources = lambda session: session.dataSource.register(source)
    else:
        kill_before(moment)
    export_run(open_run(spark, root, run_id), open_store(settings.exports[kind]), kind, Console())


def kill_before(ending: str) -> None:
    """Die instead of writing the file whose path ends so."""
    replace = LocalFileSystem.replace

    def killed(self: Any, path: str, content: bytes) -> None:
        if path.endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(self, path, content)

    LocalFileSystem.replace = killed  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
