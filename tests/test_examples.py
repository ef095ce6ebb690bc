"""The example settings: each loads and fits the inputs that are made for it, and one of them runs a night."""

from __future__ import annotations

import csv
import datetime
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config import load_settings
from recsys_spark.sources import check_inputs
from tests.night.catalogue import run_cli

EXAMPLES = Path(__file__).parents[1] / "examples"
KINDS = sorted(path.stem for path in EXAMPLES.glob("*.toml"))
UNTIL = "2026-11-20"


def make(kind: str, folder: Path) -> dict[str, str]:
    """Make the inputs of a kind as a user would; the settings that lead to them."""
    made = subprocess.run(
        [sys.executable, EXAMPLES / "make_events.py", "--kind", kind, "--folder", folder, "--until", UNTIL],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "events of 240 users, 120 items" in made.stdout
    paths = {f"{name}.path": str(folder / kind / f"{name}.csv") for name in ("events", "items")}
    return paths | {"storage.root": str(folder / kind / "root")}


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_there_is_one_of_each_kind() -> None:
    assert KINDS == ["films", "news", "shop", "video"]


@pytest.mark.parametrize("kind", KINDS)
def test_settings_load_and_fit_what_is_made(kind: str, spark: SparkSession, tmp_path: Path) -> None:
    plain = load_settings(EXAMPLES / f"{kind}.toml")
    assert plain.events.path == f"var/examples/{kind}/events.csv", "where make_events.py writes by default"
    paths = make(kind, tmp_path)
    check_inputs(spark, load_settings(EXAMPLES / f"{kind}.toml", [f"{key}={value}" for key, value in paths.items()]))
    columns, events = plain.events.columns, rows_of(paths["events.path"])
    assert columns.timestamp is not None
    times = [datetime.datetime.fromisoformat(row[columns.timestamp]) for row in events]
    assert max(times).date() <= datetime.date.fromisoformat(UNTIL) + datetime.timedelta(days=1)
    if columns.event_type is not None:
        assert {row[columns.event_type] for row in events} == set(plain.feedback.event_weights)


def test_the_same_is_made_again(tmp_path: Path) -> None:
    first, second = (make("news", tmp_path / name)["events.path"] for name in ("a", "b"))
    assert Path(first).read_bytes() == Path(second).read_bytes()


@pytest.mark.slow
def test_a_night_of_an_example(spark: SparkSession, tmp_path: Path) -> None:
    paths = make("video", tmp_path)
    sets = [part for key, value in paths.items() for part in ("--set", f"{key}={value}")]
    settings = str(EXAMPLES / "video.toml")
    outcome = run_cli(spark, "run", "--settings", settings, "--run-date", "2026-11-21", *sets)
    assert outcome.code == 0, outcome.err
    assert "240 users scored" in " ".join(outcome.out.split())
    holdout = " ".join(outcome.out.split("Hold-out")[1].split("Lists")[0].split())
    ndcg: dict[str, float] = defaultdict(float)
    for part in holdout.split("; "):
        model, _, value = part.split(",")[0].split()
        ndcg[model] = float(value)
    assert ndcg["ease"] > 2 * ndcg["popularity"] > 0, "there are tastes to learn"
