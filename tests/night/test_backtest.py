"""What was published is measured by the next nights, beside a computation in plain Python; the trend goes along."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.night.backtest_oracle import brute_force_backtest
from tests.night.catalogue import (
    FIRST_DAY,
    SECOND_DAY,
    TAKEN,
    Event,
    Workspace,
    checkerboard,
    item_id,
    unseen_item,
    user_id,
    write_events,
)
from tests.night.conftest import LATER, NEW_EVENTS, UNSEEN_USER, TwoNights

pytestmark = pytest.mark.slow

THIRD_DAY, OLD_DAY = "2024-03-11", "2024-03-08"
THIRD_EVENTS = [
    Event(UNSEEN_USER, item_id(0), "5", f"{THIRD_DAY} 01:00:00"),
    Event(UNSEEN_USER, item_id(7), "2", f"{THIRD_DAY} 02:00:00"),
    *[Event(user_id(user), unseen_item(user), "5", f"{THIRD_DAY} 03:00:00") for user in range(6, 12)],
    Event("u-new", item_id(8), "4", f"{THIRD_DAY} 04:00:00"),
    Event("u-third", item_id(8), "4", f"{THIRD_DAY} 05:00:00"),
    Event(user_id(1), checkerboard()[TAKEN].item, "5", f"{THIRD_DAY} 06:00:00"),
]


@dataclass(frozen=True)
class Third:
    """A third night up to the backtest, which is on a copy of the root; not published."""

    workspace: Workspace
    run_id: str


def steps(workspace: Workspace, day: str, **sets: str) -> str:
    """Run the steps of a night up to the backtest; give its run id."""
    for step in ("ingest", "index", "interactions", "backtest"):
        outcome = workspace.cli(step, "--run-date", day, sets=sets)
        assert outcome.code == 0, outcome.err
    return workspace.newest(day)


def copy_of(nights: TwoNights, folder: Path, events: list[Event]) -> Workspace:
    workspace = nights.workspace.copy(folder)
    write_events(workspace.folder / "events.csv", events)
    return workspace


@pytest.fixture(scope="module")
def third(nights: TwoNights, tmp_path_factory: pytest.TempPathFactory) -> Third:
    workspace = copy_of(nights, tmp_path_factory.mktemp("third") / "copy", THIRD_EVENTS)
    return Third(workspace, steps(workspace, THIRD_DAY))


def measured(workspace: Workspace, run_id: str, day: str) -> dict[tuple[str, str, int], tuple[float, int]]:
    rows = [row for row in workspace.rows("backtest", run_id) if str(row["run_date"]) == day]
    found = {(row["model"], row["metric"], row["k"]): (row["value"], row["users"]) for row in rows}
    assert len(found) == len(rows), "no row is there twice"
    return found


def facts(workspace: Workspace, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = workspace.facts("backtest", run_id)["details"]
    return found


def assert_equal(found: dict[Any, tuple[float, int]], expected: dict[Any, tuple[float, int]]) -> None:
    assert found.keys() == expected.keys()
    assert {key: users for key, (_, users) in found.items()} == {key: users for key, (_, users) in expected.items()}
    values = {key: value for key, (value, _) in expected.items()}
    assert {key: value for key, (value, _) in found.items()} == pytest.approx(values, abs=1e-9)


def test_the_first_night_says_why_nothing_is_measured(nights: TwoNights) -> None:
    assert facts(nights.workspace, nights.first) == {
        "reason": "no run of an earlier date is published", "earlier_rows": 0,
    }  # fmt: skip
    assert nights.workspace.rows("backtest", nights.first) == []
    folder = nights.workspace.run_folder(nights.first) / "trend"
    assert [path.name for path in folder.iterdir()] == ["trend.csv"]
    assert "nothing was measured: no run of an earlier date is published" in nights.printed


def test_the_second_night_equals_a_brute_force(nights: TwoNights) -> None:
    workspace = nights.workspace
    found = measured(workspace, nights.second, SECOND_DAY)
    assert_equal(found, brute_force_backtest(workspace, nights.second, nights.first))
    assert {model for model, _, _ in found} == {"published", "popularity"}
    assert found["published", "ndcg", 3][0] > 0, "some of the lists were followed"
    rows = workspace.rows("backtest", nights.second)
    assert {(str(row["lists_run_date"]), row["lists_run_id"]) for row in rows} == {(FIRST_DAY, nights.first)}
    published_at = workspace.manifest(nights.first)["published_at"]
    assert {row["lists_published_at"].isoformat() for row in rows} == {published_at.replace("Z", "+00:00")}


def test_users_without_a_list_are_counted(nights: TwoNights) -> None:
    """The users of what waited for its day, those of the new item, and one who is new."""
    users = {event.user for event in [*LATER, *NEW_EVENTS]} - {"u-new"}
    found = facts(nights.workspace, nights.second)
    assert (found["users"], found["users_without_list"], found["tiers"]) == (len(users), 1, {"embedding": len(users)})
    pairs = {(event.user, event.item) for event in [*LATER, *NEW_EVENTS]}
    known = {(event.user, event.item) for event in checkerboard()}
    assert found["new_pairs"] == len(pairs - known) == len(pairs) - 1


def test_the_night_prints_it_and_the_manifest_keeps_it(nights: TwoNights) -> None:
    found = facts(nights.workspace, nights.second)
    table = measured(nights.workspace, nights.second, SECOND_DAY)
    ours, popular = (table[model, "ndcg", 3][0] for model in ("published", "popularity"))
    assert (found["k"], found["ndcg"], found["popularity_ndcg"]) == (3, ours, popular)
    assert (
        f"the lists of {FIRST_DAY} had NDCG@3 {ours:.4f} (popularity {popular:.4f}) for {found['users']} users with "
        "new items, 1 new user had no list"
    ) in nights.printed_second
    assert nights.workspace.manifest(nights.second)["steps"]["backtest"]["details"] == found


def test_the_third_night_adds_to_the_trend(third: Third, nights: TwoNights) -> None:
    workspace = third.workspace
    found = measured(workspace, third.run_id, THIRD_DAY)
    assert_equal(found, brute_force_backtest(workspace, third.run_id, nights.second))
    assert {model for model, _, _ in found} == {
        "published", "published:embedding", "published:popularity", "popularity",
    }  # fmt: skip
    assert measured(workspace, third.run_id, SECOND_DAY) == measured(workspace, nights.second, SECOND_DAY)
    told = facts(workspace, third.run_id)
    assert told["tiers"] == {"embedding": 7, "popularity": 1}
    assert (told["users_without_list"], told["measured_before"]) == (1, SECOND_DAY)
    assert told["ndcg_before"] == measured(workspace, nights.second, SECOND_DAY)["published", "ndcg", 3][0]


def test_the_file_and_the_picture_hold_all_nights(third: Third) -> None:
    folder = third.workspace.run_folder(third.run_id) / "trend"
    with (folder / "trend.csv").open(newline="") as file:
        found = [(row["run_date"], row["model"], row["metric"], float(row["value"])) for row in csv.DictReader(file)]
    rows = third.workspace.rows("backtest", third.run_id)
    expected = [(str(row["run_date"]), row["model"], row["metric"], row["value"]) for row in rows]
    assert sorted(found) == sorted(expected)
    assert (folder / "trend.png").read_bytes().startswith(b"\x89PNG")


def test_full_input_gives_the_same(third: Third, nights: TwoNights, tmp_path: Path) -> None:
    history = [*checkerboard(), *LATER, *NEW_EVENTS, *THIRD_EVENTS]
    workspace = copy_of(nights, tmp_path / "copy", history)
    run_id = steps(workspace, THIRD_DAY, **{"events.incremental": "false"})
    assert workspace.digest("backtest", run_id) == third.workspace.digest("backtest", third.run_id)


def test_partitions_do_not_matter_and_a_second_run_of_a_night_does_not_double(third: Third, tmp_path: Path) -> None:
    workspace = third.workspace.copy(tmp_path / "copy")
    run_id = steps(workspace, THIRD_DAY, **{"spark.shuffle_partitions": "7", **_events_of(workspace)})
    assert run_id != third.run_id
    assert workspace.digest("backtest", run_id) == workspace.digest("backtest", third.run_id)
    again = workspace.cli("backtest", "--run-id", run_id, sets=_events_of(workspace))
    assert again.code == 0, again.err
    assert workspace.digest("backtest", run_id) == workspace.digest("backtest", third.run_id)


def test_a_backfill_is_measured_by_what_was_published_before_its_date(third: Third, nights: TwoNights) -> None:
    """Before all others it has nothing to measure; of the second night's date, the lists of the first."""
    oldest = steps(third.workspace, OLD_DAY, **_events_of(nights.workspace))
    assert facts(third.workspace, oldest)["reason"] == "no run of an earlier date is published"
    new = str(third.workspace.folder / "new.csv")
    run_id = steps(third.workspace, SECOND_DAY, **{"events.path": new})
    assert third.workspace.digest("backtest", run_id) == nights.workspace.digest("backtest", nights.second)


def test_without_a_new_event_the_trend_is_kept(nights: TwoNights, tmp_path: Path) -> None:
    workspace = copy_of(nights, tmp_path / "copy", [])
    run_id = steps(workspace, THIRD_DAY)
    assert workspace.digest("backtest", run_id) == workspace.digest("backtest", nights.second)
    told = facts(workspace, run_id)
    assert told["reason"] == f"no user has had anything new since {SECOND_DAY}"
    assert told["earlier_rows"] == len(workspace.rows("backtest", nights.second))


def test_lists_that_are_gone_do_not_fail_the_night(nights: TwoNights, tmp_path: Path) -> None:
    """A trend of an earlier version, too: a column that it had not yet holds nulls."""
    workspace = copy_of(nights, tmp_path / "copy", THIRD_EVENTS)
    parent = workspace.run_folder(nights.second)
    shutil.rmtree(parent / "recommendations")
    rows = workspace.rows("backtest", nights.second)
    old = workspace.table("backtest", nights.second).drop_columns(["lists_published_at"])
    shutil.rmtree(parent / "backtest")
    (parent / "backtest").mkdir()
    pq.write_table(old, parent / "backtest" / "part-0.parquet")
    run_id = steps(workspace, THIRD_DAY)
    wanted = f"recommendations of run {nights.second} of {SECOND_DAY} is not there any more"
    assert facts(workspace, run_id) == {"reason": wanted, "earlier_rows": len(rows)}
    kept = workspace.rows("backtest", run_id)
    assert sorted(row["value"] for row in kept) == sorted(row["value"] for row in rows)
    assert {row["lists_published_at"] for row in kept} == {None}


def test_lists_that_hold_seen_items_are_measured_by_repeats_too(nights: TwoNights, tmp_path: Path) -> None:
    """The manifest of the run that made them says it, whatever the settings of tonight."""
    workspace = copy_of(nights, tmp_path / "copy", THIRD_EVENTS)
    path = workspace.run_folder(nights.second) / "_MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["recommend"]["exclude_seen"] = False
    path.write_text(json.dumps(manifest))
    run_id = steps(workspace, THIRD_DAY)
    found = measured(workspace, run_id, THIRD_DAY)
    assert_equal(found, brute_force_backtest(workspace, run_id, nights.second, excludes_seen=False))
    assert facts(workspace, run_id)["new_pairs"] == len(THIRD_EVENTS), "one of them is a repeat"


def _events_of(workspace: Workspace) -> dict[str, str]:
    return {"events.path": str(workspace.folder / "events.csv")}
