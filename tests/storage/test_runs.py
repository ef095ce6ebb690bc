from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import SettingsError
from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.paths import Run, find_run, new_run_id
from recsys_spark.storage.runs import find_parent, find_unfinished, list_runs, start_run
from tests.storage.conftest import DAY, Nights


def test_run_ids_are_times_and_chance() -> None:
    ids = {new_run_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run_id) for run_id in ids)


def test_paths_of_a_run() -> None:
    run = Run("s3a://bucket/recsys/", DAY, "R1")
    assert run.path == "s3a://bucket/recsys/runs/run_date=2026-11-22/run_id=R1"
    assert run.table_path("users") == f"{run.path}/users"


def test_an_empty_root_has_no_runs(filesystem: LocalFileSystem, root: str) -> None:
    assert list_runs(filesystem, root) == ()
    assert find_parent(filesystem, root, DAY) is None
    assert find_unfinished(filesystem, root, DAY) is None
    assert find_run(filesystem, root, "R1") is None


def test_list_runs_tells_how_far_each_got(
    filesystem: LocalFileSystem, root: str, started: Nights, published: Nights
) -> None:
    published(1, date(2026, 11, 21), "first")
    published(2, DAY, "second")
    started(DAY, "third")
    stray = Path(root, "runs", "run_date=2026-11-22", "run_id=stray")
    stray.mkdir()
    Path(root, "runs", "run_date=tomorrow").mkdir()
    infos = list_runs(filesystem, root)
    assert [(info.run.run_id, info.is_published, info.is_current, info.run.parent) for info in infos] == [
        ("first", True, False, None),
        ("second", True, True, "first"),
        ("third", False, False, "first"),
    ]
    assert all(info.published_at is None or info.published_at > info.created_at for info in infos)


def test_the_parent_is_the_newest_published_run_of_an_earlier_date(
    filesystem: LocalFileSystem, root: str, started: Nights, published: Nights
) -> None:
    published(1, date(2026, 11, 20), "b-published-first")
    published(2, date(2026, 11, 20), "a-published-last")
    started(date(2026, 11, 21), "unpublished")
    published(3, DAY, "same-date")
    published(4, date(2026, 11, 25), "later")

    def parent(day: date) -> str | None:
        found = find_parent(filesystem, root, day)
        return found.run_id if found else None

    assert parent(DAY) == "a-published-last"
    assert parent(date(2026, 11, 23)) == "same-date"
    assert parent(date(2026, 12, 31)) == "later"
    assert parent(date(2026, 11, 20)) is None


def test_the_unfinished_run_is_the_last_one_of_its_date(
    filesystem: LocalFileSystem, root: str, started: Nights, published: Nights
) -> None:
    started(DAY, "first")
    started(DAY, "second")
    started(date(2026, 11, 23), "other")
    found = find_unfinished(filesystem, root, DAY)
    assert found is not None
    assert found.run_id == "second"
    published(1, DAY, "third")
    assert find_unfinished(filesystem, root, DAY) is None


def test_a_run_id_is_used_once(started: Nights) -> None:
    started(DAY, "R1")
    with pytest.raises(StorageError, match="run R1 exists"):
        started(date(2026, 11, 23), "R1")


def test_a_root_that_cannot_be_written(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"storage.root .* cannot be written"):
        start_run(spark, str(tmp_path / "file" / "root"), DAY, "digest", 0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_broken_record_is_named(filesystem: LocalFileSystem, root: str, started: Nights, content: bytes) -> None:
    storage = started()
    Path(storage.run.record_path).write_bytes(content)
    with pytest.raises(StorageError, match=r"_RUN\.json"):
        list_runs(filesystem, root)
