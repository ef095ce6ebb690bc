from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs import index, ingest
from recsys_spark.errors import AuditError
from recsys_spark.storage.runs import start_run
from recsys_spark.tables import EVENTS, ITEMS, QUARANTINE
from tests.jobs.conftest import settings_of

COLUMNS = ["user", "item", "stars", "at", "extra"]
DAY = datetime.date(2024, 3, 9)
GOOD = [(f"u{number}", f"i{number % 3}", "4", "2024-03-01 10:00:00", "x") for number in range(9)]
BAD: list[tuple[str | None, ...]] = [
    (None, "i1", "4", "2024-03-01 10:00:00", "x"),
    ("u1", "", "4", "2024-03-01 10:00:00", "x"),
    ("u1", "i1", "great", "2024-03-01 10:00:00", "x"),
    ("u1", "i1", "6", "2024-03-01 10:00:00", "x"),
    ("u1", "i1", None, "some day", None),
]
REASONS = {
    "item_id_missing": 1,
    "rating_missing": 1,
    "rating_out_of_range": 1,
    "rating_unparseable": 1,
    "timestamp_unparseable": 1,
    "user_id_missing": 1,
}


def as_csv(spark: SparkSession, folder: Path) -> tuple[str, dict[str, int]]:
    """Two files; one line is too short, one too long."""
    for name, rows in (("a.csv", GOOD), ("b.csv", BAD)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    with (folder / "b.csv").open("a", newline="") as file:
        file.write("u1\nu1,i1,4,2024-03-01 10:00:00,x,more,and more\n")
    extra = {"corrupt_record": 2, "rating_missing": 2, "timestamp_missing": 1, "item_id_missing": 2}
    return str(folder), {**REASONS, **extra}


def as_json(spark: SparkSession, folder: Path) -> tuple[str, dict[str, int]]:
    """Two lines are no JSON; a rating is a number."""
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in [*GOOD, *BAD]]
    lines[0] = lines[0].replace('"4"', "4")
    (folder / "events.json").write_text("\n".join([*lines, '{"user": "u1", "item": ', "no json"]))
    extra = {
        "corrupt_record": 2,
        "rating_missing": 3,
        "timestamp_missing": 2,
        "item_id_missing": 3,
        "user_id_missing": 3,
    }
    return str(folder / "events.json"), {**REASONS, **extra}


def as_columnar(kind: str) -> Callable[[SparkSession, Path], tuple[str, dict[str, int]]]:
    def write(spark: SparkSession, folder: Path) -> tuple[str, dict[str, int]]:
        frame = spark.createDataFrame([*GOOD, *BAD], ", ".join(f"{name} string" for name in COLUMNS))
        if kind == "table":
            frame.createOrReplaceTempView("ingested")
            return "ingested", REASONS
        frame.repartition(3).write.format(kind).save(str(folder / kind))
        return str(folder / kind), REASONS

    return write


def as_recbole(spark: SparkSession, folder: Path) -> tuple[str, dict[str, int]]:
    """Tab separated, with quotes that mean nothing; one line is too short."""
    header = "\t".join(f"{name}:token" for name in COLUMNS)
    lines = ["\t".join(value or "" for value in row) for row in [*GOOD, *BAD]]
    (folder / "a.inter").write_text("\n".join([header, *lines, '"u1']) + "\n")
    extra = {"corrupt_record": 1, "item_id_missing": 2, "rating_missing": 2, "timestamp_missing": 1}
    return str(folder / "a.inter"), {**REASONS, **extra}


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("csv", as_csv),
        ("json", as_json),
        ("parquet", as_columnar("parquet")),
        ("orc", as_columnar("orc")),
        ("table", as_columnar("table")),
        ("recbole", as_recbole),
    ],
)
def test_every_input_row_is_accepted_or_quarantined(
    spark: SparkSession, tmp_path: Path, kind: str, write: Callable[..., tuple[str, dict[str, int]]]
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    path, reasons = write(spark, folder)
    total = len(GOOD) + len(BAD) + {"csv": 2, "json": 2, "recbole": 1}.get(kind, 0)
    settings = settings_of(
        {"path": path, "format": kind, "max_quarantined_share": 1.0}, tmp_path / "root", feedback={"range": (1, 5)}
    )
    storage = start_run(spark, settings.storage.root, DAY, "digest", 0)
    facts = ingest.run(storage, settings)
    assert facts["input"] == total == storage.count(EVENTS)
    assert (facts["accepted"], facts["quarantined"]) == (len(GOOD), total - len(GOOD))
    assert facts["accepted"] + facts["quarantined"] == facts["input"]
    assert facts["reasons"] == {"events": reasons}
    assert storage.count(QUARANTINE) == facts["quarantined"]
    statuses = [row["status"] for row in storage.read(EVENTS).collect()]
    assert statuses.count("accepted") == len(GOOD)
    rows = [json.loads(row["row"]) for row in storage.read(QUARANTINE).collect()]
    assert sum(row["stars"] == "great" and row["user"] == "u1" for row in rows) == 1, "rejected rows stay readable"


def test_too_many_quarantined_rows_stop_the_run_but_stay(spark: SparkSession, tmp_path: Path) -> None:
    path, _ = as_columnar("parquet")(spark, tmp_path)
    settings = settings_of({"path": path, "max_quarantined_share": 0.35}, tmp_path / "root", feedback={"range": (1, 5)})
    storage = start_run(spark, settings.storage.root, DAY, "digest", 0)
    with pytest.raises(AuditError, match=r"5 of 14 input rows \(35.7%\) were quarantined") as failure:
        ingest.run(storage, settings)
    assert storage.path(QUARANTINE) in str(failure.value)
    assert storage.count(QUARANTINE) == len(BAD)


def test_described_rows_without_an_id_are_quarantined_beside_the_events(spark: SparkSession, tmp_path: Path) -> None:
    path, reasons = as_columnar("parquet")(spark, tmp_path)
    (tmp_path / "items.csv").write_text(f"code,label\ni0,Tea\n,Nothing\n{'x' * 2000},Long\n")
    items: dict[str, Any] = {"path": str(tmp_path / "items.csv"), "format": "csv", "id": "code"}
    settings = settings_of(
        {"path": path, "max_quarantined_share": 0.4},
        tmp_path / "root",
        feedback={"range": (1, 5)},
        items={**items, "attributes": {"title": "label"}},
    )
    storage = start_run(spark, settings.storage.root, DAY, "digest", 0)
    facts = ingest.run(storage, settings)
    assert facts["reasons"] == {"events": reasons, "items": {"entity_id_missing": 1, "entity_id_too_long": 1}}
    assert facts["quarantined"] == len(BAD), "the share counts events"
    assert storage.count(QUARANTINE) == len(BAD) + 2
    index.run(storage, settings)
    titles = {row["item_id"]: row["attributes"].get("title") for row in storage.read(ITEMS).collect()}
    assert titles == {"i0": "Tea", "i1": None, "i2": None}
