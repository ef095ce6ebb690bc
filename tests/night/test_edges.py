"""Inputs at the edge of what there can be: nothing, one user, one item, everything seen, ids of all kinds."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.night.catalogue import (
    FIRST_DAY,
    SECOND_DAY,
    Event,
    Workspace,
    item_id,
    seen_by_user,
    user_id,
    write_csv,
    write_events,
)
from tests.night.conftest import TwoNights

pytestmark = pytest.mark.slow

ODD_IDS = (
    "quote \" and '",
    "two\nlines",
    "\r\ncarriage\rreturn",
    "emoji \U0001f600 :smile:",
    "comma, semicolon; tab\t",
    "[red]markup[/red] [/bold]",
    " space at both ends ",
    "back\\slash \\n",
    "null",
    "0012",
    "\u0410\u0301 combining, \u202eright to left",
    "x" * 10_000,
)


def test_an_empty_input_stops_with_one_line(spark: SparkSession, tmp_path: Path) -> None:
    workspace = Workspace(spark, tmp_path)
    write_events(tmp_path / "events.csv", [])
    outcome = workspace.cli("run", "--run-date", FIRST_DAY)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "step interactions failed: there are no interactions to learn from: no row of" in line
    assert str(tmp_path / "events.csv") in line
    assert workspace.current() is None


def test_an_empty_increment_keeps_the_interactions(nights: TwoNights, tmp_path: Path) -> None:
    """The steps one by one: each finds the unfinished run of the date by itself."""
    workspace = nights.workspace.copy(tmp_path / "copy")
    write_events(workspace.folder / "events.csv", [])
    day = "2024-03-11"
    for step in ("ingest", "index", "interactions"):
        outcome = workspace.cli(step, "--run-date", day)
        assert outcome.code == 0, outcome.err
    run_id = workspace.newest(day)
    assert len(workspace.runs(day)) == 1
    for table in ("users", "items", "interactions"):
        assert workspace.digest(table, run_id) == nights.workspace.digest(table, nights.second), table
    early = workspace.cli("publish", "--run-date", day)
    assert early.code == 1
    assert (
        "cannot be published before its steps backtest, matrix, rules, embed_content, neighbors, train, blend, evaluate"
        in early.err
    )
    lacking = workspace.cli("recommend", "--run-date", day)
    assert lacking.code == 1
    assert "run the step" in lacking.err
    assert workspace.current() == nights.second


@pytest.mark.parametrize(("users", "items"), [(1, 4), (4, 1)], ids=["one user", "one item"])
def test_users_who_have_seen_everything_get_an_empty_list(
    spark: SparkSession, tmp_path: Path, users: int, items: int
) -> None:
    workspace = Workspace(spark, tmp_path, {"model.epochs": "2", "recommend.top_k": "10"})
    events = [
        Event(user_id(user), item_id(item), "4", f"2024-03-01 0{item}:00:00")
        for user in range(users)
        for item in range(items)
    ]
    write_events(tmp_path / "events.csv", events)
    run_id = workspace.night(FIRST_DAY)
    lists = workspace.lists()
    assert workspace.current() == run_id
    assert lists.keys() == {user_id(user) for user in range(users)}
    assert all(found.item_ids == [] for found in lists.values())
    assert len(workspace.rows("user_neighbors")) == users * (users - 1)
    similar = {row["item_id"]: row["similar_item_ids"] for row in workspace.rows("similar_items")}
    assert {item: len(others) for item, others in similar.items()} == {item_id(i): items - 1 for i in range(items)}
    shown = workspace.cli("show", "--user", user_id(0))
    assert shown.code == 0, shown.err


def test_users_whom_the_hold_out_leaves_too_little_to_train_on(spark: SparkSession, tmp_path: Path) -> None:
    """Everybody has just enough; without the hold-out nobody has."""
    workspace = Workspace(spark, tmp_path, {"model.epochs": "2", "model.min_user_interactions": "3"})
    events = [
        Event(user_id(user), item_id((user + place) % 6), "4", f"2024-03-0{1 + place} 10:00:00")
        for user in range(6)
        for place in range(3)
    ]
    write_events(tmp_path / "events.csv", events)
    outcome = workspace.cli("run", "--run-date", FIRST_DAY)
    assert outcome.code == 0, outcome.err
    assert "too little is left beside the hold-out; fitted on everything for 2 epochs" in outcome.out
    seen = seen_by_user(events)
    for user, found in workspace.lists().items():
        assert (len(found.item_ids), found.tier) == (3, "embedding")
        assert not seen[user] & set(found.item_ids)
    measured = {row["model"]: row["value"] for row in workspace.rows("metrics") if row["metric"] == "item_coverage"}
    assert measured["embedding"] == 0
    assert measured["popularity"] > 0


def test_odd_ids_come_back_as_they_were(spark: SparkSession, tmp_path: Path) -> None:
    """Lists may be longer than the catalogue, and one user has seen all of it."""
    path = str(tmp_path / "events.parquet")
    sets = {"events.path": path, "events.format": "parquet", "events.max_id_bytes": "65536"}
    workspace = Workspace(spark, tmp_path, {**sets, "model.epochs": "2", "recommend.top_k": "50"})
    ids = list(ODD_IDS)
    events = [
        Event(f"user {name}", f"item {other}", "4", f"2024-03-0{1 + place % 9} 10:00:00")
        for number, name in enumerate(ids)
        for place, other in enumerate(ids)
        if number == 0 or (number + place) % 3
    ]
    pq.write_table(pa.Table.from_pylist([event._asdict() for event in events]), path)
    workspace.night(FIRST_DAY)
    items, seen = {event.item for event in events}, seen_by_user(events)
    lists = workspace.lists()
    assert lists.keys() == seen.keys()
    for user, found in lists.items():
        assert set(found.item_ids) == items - seen[user]
        assert len(set(found.item_ids)) == len(found.item_ids)
    assert lists[f"user {ids[0]}"].item_ids == []

    for name in (ids[1], "[red]markup[/red] [/bold]", "emoji \U0001f600 :smile:"):
        shown = workspace.cli("show", "--user", f"user {name}")
        assert shown.code == 0, shown.err
    assert "item [red]markup[/red] [/bold]" in workspace.cli("show", "--user", f"user {ids[4]}").out
    write_csv(tmp_path / "pairs.csv", ["user_id", "item_id"], [(f"user {ids[0]}", f"item {ids[4]}")])
    predicted = workspace.cli("predict", "--pairs", str(tmp_path / "pairs.csv"))
    (row,) = csv.DictReader(io.StringIO(predicted.out))
    assert (row["user_id"], row["item_id"], row["status"]) == (f"user {ids[0]}", f"item {ids[4]}", "predicted")


def test_long_ids_are_quarantined_by_default(spark: SparkSession, tmp_path: Path) -> None:
    workspace = Workspace(spark, tmp_path, {"events.max_quarantined_share": "1"})
    write_events(
        tmp_path / "events.csv", [Event("x" * 10_000, "i", "4", "2024-03-01"), Event("u", "i", "4", "2024-03-01")]
    )
    assert workspace.cli("ingest", "--run-date", SECOND_DAY).code == 0
    facts = workspace.facts("ingest", workspace.newest(SECOND_DAY))["details"]
    assert (facts["accepted"], facts["reasons"]) == (1, {"events": {"user_id_too_long": 1}})


def test_the_run_date_ends_at_midnight_of_the_events_time_zone(spark: SparkSession, tmp_path: Path) -> None:
    """16:00 UTC is one in the morning of the next day in Tokyo."""
    workspace = Workspace(spark, tmp_path)
    write_events(tmp_path / "events.csv", [Event("u", "i", "4", f"{FIRST_DAY}T16:00:00Z")])
    statuses = {}
    for zone in ("UTC", "Asia/Tokyo"):
        assert workspace.cli("ingest", "--run-date", FIRST_DAY, sets={"events.timezone": zone}).code == 0
        (statuses[zone],) = [row["status"] for row in workspace.rows("events", workspace.newest(FIRST_DAY))]
    assert statuses == {"UTC": "accepted", "Asia/Tokyo": "later"}
