from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import to_arrow_type

from recsys_spark.config import Settings
from recsys_spark.storage.publishing import publish
from recsys_spark.storage.receipts import table_receipt, write_receipt
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import start_run
from recsys_spark.tables import RECOMMENDATIONS
from tests.sinks.servers import HOST, PostgresServer, RedisServer, postgres_server, redis_server

DAY = date(2026, 11, 22)
N_USERS = 60
FILES = 4

Lists = Mapping[str, Sequence[tuple[str, float]]]
Publish = Callable[..., RunStorage]
_names = itertools.count()


@pytest.fixture(scope="session")
def redis_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_at() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def published(spark: SparkSession, root: str) -> Publish:
    """Publishes lists as a run; the dates of several runs follow each other."""
    days = itertools.count()

    def go(run_id: str, lists: Lists | None = None, settings: Settings | None = None) -> RunStorage:
        storage = start_run(spark, root, DAY + timedelta(days=next(days)), "digest", 7, run_id=run_id)
        write_lists(storage, lists_of(run_id) if lists is None else lists)
        publish(storage, settings or {})
        return storage

    return go


@pytest.fixture
def exports(redis_at: RedisServer, postgres_at: PostgresServer, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A section for each store, in places that no other test has."""
    number = next(_names)
    redis_login = {"host": HOST, "port": redis_at.port, "password_file": str(redis_at.password_file)}
    postgres_login = {"host": HOST, "port": postgres_at.port, "password_file": str(postgres_at.password_file)}
    return {
        "redis": {"kind": "redis", **redis_login, "prefix": f"test{number}"},
        "postgres": {
            "kind": "postgres", **postgres_login, "user": "exporter", "database": "serving", "table": f"lists{number}",
        },
        "jsonl": {"kind": "jsonl", "path": str(tmp_path / "jsonl")},
        "csv": {"kind": "csv", "path": str(tmp_path / "csv")},
    }  # fmt: skip


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, Any]:
    """The section of an Iceberg table in a catalog of its own."""
    (tmp_path / "lake").mkdir()
    return {"kind": "iceberg", "catalog_uri": f"sqlite:///{tmp_path}/lake.db", "warehouse": str(tmp_path / "lake")}


def lake_table(lake: dict[str, Any], name: str = "recsys.recommendations") -> Table:
    return load_catalog("default", uri=lake["catalog_uri"], warehouse=lake["warehouse"]).load_table(name)


def settings_of(root: str, exports: Mapping[str, Any]) -> Settings:
    events = {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}}
    content: dict[str, Any] = {"storage": {"root": root}, "events": events, "exports": exports}
    return Settings(**content)


def lists_of(run_id: str, users: int = N_USERS) -> Lists:
    """Items that name their run, so that a mix of two runs shows."""
    return {
        f"u{user}": [(f"{run_id}-i{place}", round(1 - place / 10 - user / 1000, 3)) for place in range(user % 3 + 1)]
        for user in range(users)
    }


def write_lists(storage: RunStorage, lists: Lists) -> None:
    """The table as a night leaves it, in several files."""
    folder = Path(storage.path(RECOMMENDATIONS))
    folder.mkdir(parents=True)
    for part in range(FILES):
        pq.write_table(table_of(dict(list(lists.items())[part::FILES])), folder / f"part-{part:05}.parquet")
    write_receipt(storage.filesystem, storage.run, table_receipt(RECOMMENDATIONS, len(lists)))


def table_of(lists: Lists) -> pa.Table:
    items = [[item for item, _ in found] for found in lists.values()]
    scores = [[score for _, score in found] for found in lists.values()]
    arrays: dict[str, pa.Array] = {
        "user_id": pa.array(list(lists), pa.string()),
        "item_ids": pa.array(items, pa.list_(pa.string())),
        "scores": pa.array(scores, pa.list_(pa.float32())),
        "tier": pa.array(["embedding"] * len(lists), pa.string()),
    }
    for column in RECOMMENDATIONS.columns[4:]:
        arrays[column.name] = pa.nulls(len(lists), to_arrow_type(column.type))
    return pa.table(arrays)


def rounded(found: Sequence[tuple[str, float]] | None) -> list[tuple[str, float]] | None:
    """With scores as float32, which is what is promised."""
    return None if found is None else [(item, float(np.float32(score))) for item, score in found]
