"""A user who asked to be forgotten: the next night knows nothing of them, and what did is gone after it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys_spark.storage.lease import hold_lease
from recsys_spark.storage.local_filesystem import LocalFileSystem
from tests.night.catalogue import N_USERS, Event, Workspace, item_id, user_id, write_csv, write_events
from tests.night.conftest import UNSEEN_USER, TwoNights

pytestmark = pytest.mark.slow

DAY = "2024-03-11"
USER = user_id(3)
HASH = hashlib.sha256(USER.encode()).hexdigest()
INPUT = [
    Event(USER, item_id(2), "5", f"{DAY} 08:00:00"),
    Event(USER, item_id(4), "not a rating", f"{DAY} 08:00:00"),
    Event(user_id(4), item_id(1), "4", f"{DAY} 09:00:00"),
]


def text_of(workspace: Workspace, run_id: str) -> str:
    """All tables of a run, and all that is said of it, as text."""
    folder = workspace.run_folder(run_id)
    rows: list[Any] = [pq.read_table(path, partitioning=None).to_pylist() for path in folder.rglob("*.parquet")]
    records = [path.read_text() for path in folder.rglob("*.json")]
    return json.dumps(rows, default=str) + "".join(records)


@pytest.fixture
def workspace(nights: TwoNights, tmp_path: Path) -> Workspace:
    copy = nights.workspace.copy(tmp_path / "copy")
    write_events(copy.folder / "events.csv", INPUT)
    write_csv(copy.folder / "users.csv", ["name"], [[user_id(user)] for user in range(N_USERS)] + [[UNSEEN_USER]])
    return copy


def test_a_forgotten_user_is_in_nothing_that_comes_after(nights: TwoNights, workspace: Workspace) -> None:
    assert USER in text_of(workspace, nights.second), "or the search would find nothing in any case"
    kept = workspace.positions("user", nights.second)
    place = kept.pop(USER)
    told = workspace.cli("forget", "--user", USER)
    assert told.code == 0, told.err
    assert "2 runs may hold them" in told.out
    record = json.loads((workspace.root / "_FORGOTTEN" / f"{HASH}.json").read_text())
    assert (record["user_sha256"], record["done_at"]) == (HASH, None)
    run_id = workspace.night(DAY, sets={"storage.grace_hours": "0", "events.max_quarantined_share": "0.9"})
    assert USER not in text_of(workspace, run_id)
    assert workspace.facts("ingest", run_id)["details"]["forgotten"] == 2
    assert workspace.positions("user", run_id)[f"__forgotten__:{place}"] == place
    assert kept.items() <= workspace.positions("user", run_id).items()
    assert place not in {row["user_idx"] for row in workspace.rows("interactions", run_id)}
    assert set(workspace.lists(run_id)) == set(kept)
    # Readers have no grace here, so what held the user went with the night.
    assert [json.loads(path.read_text())["run_id"] for path in workspace.runs()] == [run_id]
    record = json.loads((workspace.root / "_FORGOTTEN" / f"{HASH}.json").read_text())
    assert record["done_at"] is not None


def test_no_way_leads_back_to_a_run_that_holds_them(nights: TwoNights, workspace: Workspace) -> None:
    assert workspace.cli("ingest", "--run-date", DAY, sets={"events.max_quarantined_share": "0.9"}).code == 0
    started = workspace.newest(DAY)
    assert workspace.cli("forget", "--user", USER).code == 0
    for command in (("run", "--resume", started), ("rollback", nights.first)):
        refused = workspace.cli(*command, sets={"events.max_quarantined_share": "0.9"})
        assert refused.code == 1
        assert "was started before a user was forgotten" in refused.err
    assert workspace.current() == nights.second
    dry = workspace.cli("clean", "--dry-run")
    assert f"would be removed: unfinished run {started}" in dry.out
    assert nights.second not in dry.out


def test_a_night_at_work_is_not_disturbed(workspace: Workspace) -> None:
    with hold_lease(LocalFileSystem(), str(workspace.root), "other", 600):
        refused = workspace.cli("forget", "--user", USER)
    assert refused.code == 1
    assert "is leased to run other" in refused.err
    assert not (workspace.root / "_FORGOTTEN").exists()


def test_no_input_takes_the_name_that_stands_for_them(workspace: Workspace) -> None:
    write_events(
        workspace.folder / "events.csv", [*INPUT, Event("__forgotten__:3", item_id(1), "4", f"{DAY} 09:00:00")]
    )
    assert workspace.cli("ingest", "--run-date", DAY, sets={"events.max_quarantined_share": "1"}).code == 0
    reasons = [row["reasons"] for row in workspace.rows("quarantine", workspace.newest(DAY))]
    assert ["user_id_reserved"] in reasons
