from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_spark.storage import retention
from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.paths import POINTER, Run
from recsys_spark.storage.pointer import current_run, point_to, read_history
from recsys_spark.storage.publishing import rollback
from recsys_spark.storage.records import utc_now
from recsys_spark.storage.retention import Keep, finish_removals, removable_runs, remove_old_runs
from recsys_spark.storage.runs import RunInfo, find_parent, find_unfinished, list_runs
from tests.storage.conftest import Nights

FRIDAY, SATURDAY, SUNDAY, MONDAY = (date(2026, 11, day) for day in (20, 21, 22, 23))
NO_GRACE = timedelta(0)


def removed(root: str, keep: Keep, now: datetime | None = None) -> list[str]:
    return [info.run.run_id for info in removable_runs(LocalFileSystem(), root, keep, now)]


@pytest.fixture
def week(published: Nights, started: Nights, root: str) -> str:
    """Three published nights, an unfinished one of the first date and one of the last."""
    for value, day in enumerate((FRIDAY, SATURDAY, SUNDAY)):
        published(value, day, f"p{value}")
    started(FRIDAY, "u-early")
    started(SUNDAY, "u-late")
    return root


def test_nothing_goes_unless_something_says_so(week: str) -> None:
    assert removed(week, Keep(None, None, NO_GRACE)) == []


@pytest.mark.parametrize(
    ("runs", "expected"), [(1, ["p0", "u-early"]), (2, ["p0", "u-early"]), (3, ["u-early"]), (9, ["u-early"])]
)
def test_the_newest_published_runs_are_kept(week: str, runs: int, expected: list[str]) -> None:
    """And p1, which the unfinished run of the last date builds on."""
    assert removed(week, Keep(runs, None, NO_GRACE)) == expected


def test_days_keep_what_the_number_would_not(week: str) -> None:
    later = utc_now() + timedelta(days=2)
    assert removed(week, Keep(1, 3, NO_GRACE), later) == []
    assert removed(week, Keep(1, 1, NO_GRACE), later) == ["p0", "u-early"]
    assert removed(week, Keep(None, 1, NO_GRACE), later) == ["p0", "u-early"]


def test_readers_have_their_grace(week: str) -> None:
    keep = Keep(1, None, timedelta(hours=2))
    assert removed(week, keep) == ["u-early"], "all were published within two hours"
    assert removed(week, keep, utc_now() + timedelta(hours=3)) == ["p0", "u-early"]


def test_a_run_that_was_current_until_lately_is_kept_however_old_it_is(week: str) -> None:
    """Rolled back to the first run for a while, then forth again: whoever read the first may still."""
    filesystem, later = LocalFileSystem(), utc_now() + timedelta(hours=3)
    keep = Keep(1, None, timedelta(hours=2))
    rollback(filesystem, week, "p0")
    assert "p0" not in removed(week, keep, later), "it is current"
    rollback(filesystem, week, "p2")
    assert "p0" in removed(week, keep, later)
    _move_history(Path(week), later)
    assert "p0" not in removed(week, keep, later)
    assert [run_id for run_id, _ in read_history(filesystem, week)] == ["p0", "p1"]


def _move_history(root: Path, until: datetime) -> None:
    import json

    pointer = json.loads((root / POINTER).read_text())
    pointer["history"][0]["until"] = until.isoformat()
    (root / POINTER).write_text(json.dumps(pointer))


def test_the_parent_of_a_run_to_go_on_with_is_kept(published: Nights, started: Nights, root: str) -> None:
    published(0, FRIDAY, "p0")
    started(SUNDAY, "u")
    published(1, SATURDAY, "p1")
    assert list_runs(LocalFileSystem(), root)[-1].run.parent == "p0"
    assert removed(root, Keep(1, None, NO_GRACE)) == []


def test_a_broken_pointer_stops_it(week: str) -> None:
    (Path(week) / POINTER).write_text("{")
    with pytest.raises(StorageError, match="is not valid JSON"):
        removed(week, Keep(1, None, NO_GRACE))
    assert len(list_folders(week)) == 5


def list_folders(root: str) -> list[str]:
    return sorted(path.name for path in Path(root).glob("runs/*/run_id=*"))


def test_a_removal_that_broke_off_is_no_run_and_is_finished(week: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is gone, the folder is not: nobody resumes it, builds on it or lists it."""
    filesystem, delete = LocalFileSystem(), LocalFileSystem.delete

    def fail_at_folders(self: LocalFileSystem, path: str) -> None:
        if not path.endswith(".json"):
            raise OSError("the disk is gone")
        delete(self, path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is gone"):
        patch.setattr(LocalFileSystem, "delete", fail_at_folders)
        remove_old_runs(filesystem, week, Keep(1, None, NO_GRACE))
    assert "run_id=p0" in list_folders(week)
    assert "p0" not in [info.run.run_id for info in list_runs(filesystem, week)]
    assert find_parent(filesystem, week, SATURDAY) is None
    dry = [info.run.run_id for info in removable_runs(filesystem, week, Keep(1, None, NO_GRACE))]
    assert dry == ["u-early"], "what is being removed is no run"
    assert [info.run.run_id for info in remove_old_runs(filesystem, week, Keep(1, None, NO_GRACE))] == ["u-early"]
    assert list_folders(week) == ["run_id=p1", "run_id=p2", "run_id=u-late"]
    assert finish_removals(filesystem, week) == 0
    assert not list((Path(week) / "_REMOVING").iterdir())


def test_a_run_that_has_lost_its_record_is_left_alone(week: str) -> None:
    """Readers may see it all the same: it is what the pointer names here."""
    filesystem = LocalFileSystem()
    current = current_run(filesystem, week)
    assert current is not None
    filesystem.delete(current.record_path)
    remove_old_runs(filesystem, week, Keep(1, None, NO_GRACE))
    assert "run_id=p2" in list_folders(week)
    assert filesystem.exists(current.manifest_path)


@dataclass(frozen=True)
class Entry:
    """A run as lists of runs have it, for drawn ones."""

    day: int
    hours_ago: int
    kind: str


ENTRIES = st.builds(
    Entry, st.integers(0, 4), st.integers(0, 200), st.sampled_from(["published", "withdrawn", "unfinished"])
)


@given(entries=st.lists(ENTRIES, max_size=8), runs=st.integers(1, 4), days=st.one_of(st.none(), st.integers(1, 5)),
       grace=st.integers(0, 60), at=st.integers(0, 7))  # fmt: skip
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_needed_never_goes(entries: list[Entry], runs: int, days: int | None, grace: int, at: int) -> None:
    now = datetime.fromisoformat("2026-11-26T12:00:00+00:00")
    infos = []
    for number, entry in enumerate(entries):
        when = now - timedelta(hours=entry.hours_ago)
        parents = [f"r{place}" for place, each in enumerate(entries[:number]) if each.kind != "unfinished"]
        day = date(2026, 11, 20) + timedelta(days=entry.day)
        run = Run("/root", day, f"r{number}", parents[-1] if parents else None)
        is_published = entry.kind != "unfinished"
        infos.append(
            RunInfo(run, when, when if is_published else None, is_published and number == at, entry.kind == "withdrawn")
        )
    keep = Keep(runs, days, timedelta(hours=grace))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "current_run", lambda *_: None)
        patch.setattr(retention, "read_history", lambda *_: ())
        patch.setattr(retention, "runs_under", lambda *_: tuple(infos))
        gone = {info.run.run_id for info in removable_runs(LocalFileSystem(), "/root", keep, now)}
    usable = [info for info in infos if info.is_published and not info.is_withdrawn]
    newest = max(usable, key=lambda info: (info.run.run_date, info.published_at), default=None)
    left = [info for info in infos if info.run.run_id not in gone]
    assert newest is None or newest in left
    assert all(info in left for info in infos if info.is_current)
    assert len([info for info in left if info in usable]) >= min(runs, len(usable))
    for info in infos:
        since = info.published_at or info.created_at
        if days is not None and since > now - timedelta(days=days):
            assert info in left
        if info.is_published and since > now - timedelta(hours=grace):
            assert info in left
        if info in left and not info.is_published and info.run.parent:
            assert info.run.parent not in gone


def test_the_pointer_remembers_each_run_once(published: Nights, root: str) -> None:
    filesystem = LocalFileSystem()
    runs = [published(value, day, f"p{value}").run for value, day in enumerate((FRIDAY, SATURDAY))]
    for _ in range(3):
        for run in runs:
            point_to(filesystem, run)
    assert [run_id for run_id, _ in read_history(filesystem, root)] == ["p0"]
    assert current_run(filesystem, root) == Run(str(Path(root).resolve()), SATURDAY, "p1")
    assert find_unfinished(filesystem, root, MONDAY) is None
