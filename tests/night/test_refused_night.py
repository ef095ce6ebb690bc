"""A night that the audit refuses: readers keep what they had, and a reason publishes it all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.night.catalogue import write_events
from tests.night.conftest import TwoNights

pytestmark = pytest.mark.slow

DAY = "2024-03-12"
FAILED = "hours from the newest event to the end of the run date is 60, must be at most 59"


def test_a_refused_run_stays_and_can_be_forced(nights: TwoNights, tmp_path: Path) -> None:
    """The newest event is of noon two days before; no check fails but that of its age."""
    workspace = nights.workspace.copy(tmp_path / "copy")
    write_events(workspace.folder / "events.csv", [])
    strict = {"audit.max_input_age_hours": "59", "events.max_quarantined_share": "0.1"}
    refused = workspace.cli("run", "--run-date", DAY, sets=strict)
    assert refused.code == 3
    assert FAILED in refused.err
    assert "say why with --force" in refused.err
    run_id = workspace.newest(DAY)
    folder = workspace.run_folder(run_id)
    assert workspace.current() == nights.second
    assert not (folder / "_MANIFEST.json").exists()
    checks = json.loads((folder / "audit" / "checks.json").read_text())
    assert [check["name"] for check in checks if not check["passed"]] == [FAILED.split(" is ")[0]]
    overlap = {check["name"]: check["value"] for check in checks}
    assert 0 < overlap["share of a list that was in the user's list of 2024-03-10"] <= 1
    again = workspace.cli("run", "--resume", run_id, sets=strict)
    assert (again.code, workspace.current()) == (3, nights.second)
    forced = workspace.cli("run", "--resume", run_id, "--force", "no shop was open", sets=strict)
    assert forced.code == 0, forced.err
    assert workspace.current() == run_id
    found = workspace.manifest(run_id)["steps"]["audit"]["details"]
    assert (found["failed"], found["forced"]) == ([FAILED], "no shop was open")
    assert f"published although {FAILED}: no shop was open" in forced.out
