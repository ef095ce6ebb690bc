"""A driver that exports to several stores at once and is killed when each export has reached a chosen moment.

`python -m tests.sinks.killed_driver ROOT RUN FOLDER`; standard input: `{"moments": {kind: moment}, "exports": ...}`.
Moments of servers are those of `disturbed`, of files the ending of the path that would be written next. A file of the
kind's name in the folder says that it is reached, and a file `go-on` lets what is left of the driver go on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.sinks import stores
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.stores import Store, open_store
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import open_run
from tests.conftest import SPARK_CONF
from tests.sinks.conftest import settings_of
from tests.sinks.disturbed import SOURCES, disturbed, pause_at


def main() -> None:
    root, run_id, folder = sys.argv[1:]
    given = json.load(sys.stdin)
    moments, settings = given["moments"], settings_of(root, given["exports"])
    spark = open_spark()
    stores.register_sources = lambda session: None
    for kind, moment in moments.items():
        pause = pause_at(moment, f"{folder}/{kind}", f"{folder}/go-on")
        if kind in SOURCES:
            register(spark, kind, pause)
        else:
            pause_before(moment, pause)
        arguments = (open_run(spark, root, run_id), open_store(settings.exports[kind]), kind)
        threading.Thread(target=export, args=arguments, daemon=True).start()
    ends = time.monotonic() + 40
    while not all(Path(folder, kind).exists() for kind in moments) and time.monotonic() < ends:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


def export(storage: RunStorage, store: Store, kind: str) -> None:
    storage.spark.createDataFrame([], "id int")  # makes the session the active one of this thread
    export_run(storage, store, kind, Console())


def open_spark() -> SparkSession:
    builder = SparkSession.builder.master("local[4,4]")
    for key, value in {**SPARK_CONF, "spark.driver.memory": "512m"}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def register(spark: SparkSession, kind: str, pause: Any) -> None:
    """The disturbed source, once and for all exports."""
    spark.dataSource.register(disturbed(kind, pause))


def pause_before(ending: str, pause: Any) -> None:
    """Wait instead of writing the file whose path ends so."""
    replace = LocalFileSystem.replace

    def paused(self: Any, path: str, content: bytes) -> None:
        if path.endswith(ending):
            pause(ending)
        replace(self, path, content)

    LocalFileSystem.replace = paused  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
