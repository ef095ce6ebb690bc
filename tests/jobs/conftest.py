from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs import index, ingest, interactions
from recsys_spark.config import Settings
from recsys_spark.storage.publishing import publish
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import start_run

Prepared = Callable[..., RunStorage]


def settings_of(events: dict[str, Any], root: Path, **sections: Any) -> Settings:
    columns = {"user": "user", "item": "item", "rating": "stars", "timestamp": "at"}
    return Settings(**{"storage": {"root": str(root)}, "events": {"columns": columns, **events}, **sections})


@pytest.fixture
def prepared(spark: SparkSession) -> Prepared:
    """Runs the steps up to `interactions` and publishes what there is, so that a later run builds on it."""

    def run(settings: Settings, day: str) -> RunStorage:
        run_date = datetime.date.fromisoformat(day)
        storage = start_run(spark, settings.storage.root, run_date, settings.digest(), settings.seed)
        for job in (ingest, index, interactions):
            storage.finish_step(job.__name__.removeprefix("jobs."), job.run(storage, settings))
        publish(storage, settings)
        return storage

    return run
