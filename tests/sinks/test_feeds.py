from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.files import GapError, RecommendationReader, apply_delta, read_lists, read_pointer
from recsys_spark.sinks.stores import open_store
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import start_run
from tests.sinks.conftest import DAY, Publish, lists_of, rounded, settings_of, write_lists
from tests.sinks.test_texts import HOSTILE, IDS, SCORES

KINDS = ["jsonl", "csv"]
FEW = {"ann": [("tea", 0.5), ("milk", 0.25)], "bob": [("tea", 0.75)], "cat": [("sand", 1.0)]}
Export = Callable[..., Path]


@pytest.fixture
def export(exports: dict[str, dict[str, Any]], root: str) -> Export:
    """Exports a run to files of a kind and gives the folder."""

    def go(kind: str, storage: RunStorage, **changes: Any) -> Path:
        settings = settings_of(root, {kind: {**exports[kind], **changes}})
        export_run(storage, open_store(settings.exports[kind]), kind, Console(quiet=True))
        return Path(exports[kind]["path"])

    return go


def values(lists: Any) -> dict[str, Any]:
    return {user: rounded(found) for user, found in lists.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_each_run_replaces_the_one_before(kind: str, compression: str, export: Export, published: Publish) -> None:
    folder = export(kind, published("r1"), compression=compression)
    reader = RecommendationReader(folder)
    assert values(read_lists(folder / "full/run_id=r1")) == values(lists_of("r1"))
    assert rounded(reader.recommend("u2", 2)) == rounded(lists_of("r1")["u2"][:2])
    export(kind, published("r2"), compression=compression)
    served = reader.run()
    assert served is not None
    assert (served.run_id, served.run_date.isoformat()) == ("r2", "2026-11-23")
    assert {user: rounded(reader.recommend(user)) for user in lists_of("r2")} == values(lists_of("r2"))
    assert reader.recommend("nobody") is None
    assert (folder / "full/run_id=r1").is_dir(), "whoever reads it goes on"


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_ids_come_back(kind: str, export: Export, published: Publish) -> None:
    hostile = [text for text in HOSTILE if text]
    lists = {user: [(item, 1 / (place + 1)) for place, item in enumerate(hostile)] for user in hostile}
    folder = export(kind, published("r1", lists))
    assert values(read_lists(folder / "full/run_id=r1")) == values(lists)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lists=st.dictionaries(IDS, st.lists(st.tuples(IDS, SCORES), max_size=4), min_size=20, max_size=60))
def test_any_ids_come_back(
    kind: str, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, lists: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("feed")
    storage = start_run(spark, str(folder / "root"), DAY, "digest", 7, run_id="r")
    write_lists(storage, lists)
    export = settings_of("/", {"feed": {"kind": kind, "path": str(folder / "feed")}}).exports["feed"]
    open_store(export).write(storage)
    assert values(read_lists(folder / "feed/full/run_id=r")) == values(lists)


@pytest.mark.parametrize("kind", KINDS)
def test_deltas_lead_from_run_to_run_and_refuse_a_gap(kind: str, export: Export, published: Publish) -> None:
    second = {"ann": FEW["ann"], "bob": [("milk", 0.75)], "dan": []}
    third = {**second, "cat": [("sand", 0.5)]}
    folder = export(kind, published("r1", FEW), delta=True)
    first_pointer = read_pointer(folder)
    assert first_pointer is not None
    assert first_pointer["delta"] is None, "nothing came before"
    mine = read_lists(folder / first_pointer["full"])
    export(kind, published("r2", second), delta=True)
    pointer = read_pointer(folder)
    assert pointer is not None
    expected = {"run_id": "r2", "base_run_id": "r1", "upserts": 2, "deletes": 1}
    assert pointer["delta"] == {**expected, "path": "delta/run_id=r2/base=r1"}
    mine, run_id = apply_delta(mine, "r1", folder / pointer["delta"]["path"])
    assert (values(mine), run_id) == (values(second), "r2")
    export(kind, published("r3", third), delta=True)
    with pytest.raises(GapError, match="builds on run r2, not on r1: take the full lists"):
        apply_delta(mine, "r1", folder / "delta/run_id=r3/base=r2")
    mine, run_id = apply_delta(mine, "r2", folder / "delta/run_id=r3/base=r2")
    assert (values(mine), run_id) == (values(third), "r3")


def test_a_way_back_has_a_delta_of_its_own(export: Export, published: Publish) -> None:
    first, second = published("r1", FEW), published("r2", {"ann": FEW["ann"]})
    for storage in (first, second, first):
        folder = export("jsonl", storage, delta=True)
    mine, run_id = apply_delta(values({"ann": FEW["ann"]}), "r2", folder / "delta/run_id=r1/base=r2")
    assert (values(mine), run_id) == (values(FEW), "r1")


def test_without_the_lists_before_there_is_no_delta(export: Export, published: Publish) -> None:
    first = published("r1", FEW)
    export("jsonl", first, delta=True)
    first.filesystem.delete(first.run.path)
    folder = export("jsonl", published("r2", FEW), delta=True)
    pointer = read_pointer(folder)
    assert pointer is not None
    assert (pointer["run_id"], pointer["delta"]) == ("r2", None)


def test_the_same_run_again_writes_nothing(export: Export, published: Publish) -> None:
    storage = published("r1", FEW)
    folder = export("jsonl", storage)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    export("jsonl", storage)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("ending", ["_DONE.json", "_CURRENT"])
def test_an_export_that_broke_off_is_finished(
    ending: str, export: Export, published: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export("jsonl", published("r1", FEW))
    second = published("r2", {"ann": FEW["ann"]})
    replace = LocalFileSystem.replace

    def fail(self: LocalFileSystem, path: str, content: bytes) -> None:
        if path.endswith(ending):
            raise OSError("disk full")
        replace(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "replace", fail)
        with pytest.raises(ExportError, match="disk full"):
            export("jsonl", second)
    assert RecommendationReader(folder).recommend("bob") == FEW["bob"]
    export("jsonl", second)
    assert RecommendationReader(folder).recommend("bob") is None


def test_old_runs_go(export: Export, published: Publish) -> None:
    for number in range(4):
        folder = export("jsonl", published(f"r{number}", FEW), keep=2, delta=True)
    assert sorted(path.name for path in (folder / "full").iterdir()) == ["run_id=r2", "run_id=r3"]
    assert sorted(path.name for path in (folder / "delta").iterdir()) == ["run_id=r2", "run_id=r3"]


def test_a_folder_of_something_else_is_refused(export: Export, published: Publish, tmp_path: Path) -> None:
    (tmp_path / "jsonl").mkdir()
    (tmp_path / "jsonl" / "_CURRENT").write_text(json.dumps({"format_version": 1, "run_id": "r0"}))
    with pytest.raises(ExportError, match="is not the pointer of a feed: name a folder of its own"):
        export("jsonl", published("r1", FEW))
    export("csv", published("r2", FEW))
    with pytest.raises(ExportError, match="is of a feed of kind csv"):
        export("jsonl", published("r3", FEW), path=str(tmp_path / "csv"))
