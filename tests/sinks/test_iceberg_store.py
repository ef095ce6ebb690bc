from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table
from rich.console import Console

from recsys_spark.sinks import iceberg_store
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.exporting import export_run
from recsys_spark.sinks.iceberg import RecommendationReader
from recsys_spark.sinks.stores import open_store
from tests.sinks.conftest import N_USERS, Publish, lake_table, lists_of, rounded, settings_of

pytestmark = pytest.mark.filterwarnings("ignore")
Export = Callable[..., None]


@pytest.fixture
def export(lake: dict[str, Any], root: str) -> Export:
    def go(storage: Any, **changes: Any) -> None:
        settings = settings_of(root, {"lake": {**lake, **changes}})
        export_run(storage, open_store(settings.exports["lake"]), "lake", Console(quiet=True))

    return go


def serves(lake: dict[str, Any], run_id: str) -> bool:
    table = lake_table(lake)
    rows = table.scan().to_arrow().to_pylist()
    found = {row["user_id"]: rounded(list(zip(row["item_ids"], row["scores"], strict=True))) for row in rows}
    served = RecommendationReader(table).run()
    expected = {user: rounded(lists) for user, lists in lists_of(run_id).items()}
    return served is not None and served.run_id == run_id and found == expected and len(rows) == N_USERS


def test_each_run_replaces_the_one_before(export: Export, published: Publish, lake: dict[str, Any]) -> None:
    export(published("r1"))
    assert serves(lake, "r1")
    export(published("r2"))
    assert serves(lake, "r2")
    reader = RecommendationReader(lake_table(lake))
    assert rounded(reader.recommend("u2", 2)) == rounded(lists_of("r2")["u2"][:2])
    assert reader.recommend("nobody") is None
    assert list(lake_table(lake).metadata.refs) == ["main"], "the branch is gone"


def test_the_same_run_again_writes_nothing(
    export: Export, published: Publish, lake: dict[str, Any], tmp_path: Path
) -> None:
    storage = published("r1")
    export(storage)
    before, files = lake_table(lake).metadata_location, sorted((tmp_path / "lake").rglob("*"))
    export(storage)
    assert (lake_table(lake).metadata_location, sorted((tmp_path / "lake").rglob("*"))) == (before, files)


def test_what_fails_its_count_is_never_served(
    export: Export, published: Publish, lake: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    export(published("r1"))
    second = published("r2")
    with monkeypatch.context() as patch:
        lists = iceberg_store.lists_of
        patch.setattr(iceberg_store, "lists_of", lambda storage: lists(storage).limit(59))
        with pytest.raises(ExportError, match=r"branch audit-r2 of recsys.recommendations has 59 users, run r2 60"):
            export(second)
    assert serves(lake, "r1")
    export(second)
    assert serves(lake, "r2")


def test_old_runs_go_with_their_files(export: Export, published: Publish, lake: dict[str, Any], tmp_path: Path) -> None:
    for number in range(4):
        export(published(f"r{number}"), keep=2)
    folders = (tmp_path / "lake" / "recsys_spark-recsys.recommendations").glob("run_id=*")
    assert sorted(path.name for path in folders) == ["run_id=r2", "run_id=r3"]
    assert serves(lake, "r3")


def changes_at(lake: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake_table(lake, "recsys.recommendations_changes").scan().to_arrow().to_pylist()
    return rows


def test_changes_turn_one_run_into_the_next(
    export: Export, published: Publish, lake: dict[str, Any], tmp_path: Path
) -> None:
    """One list is new, one has another item, one is gone, one is as it was; the third run is as the second."""
    first = {"same": [("a", 1.0)], "other": [("a", 1.0)], "gone": [("b", 0.5)]}
    second = {"same": [("a", 1.0)], "other": [("b", 1.0)], "new": [("c", 0.25), ("d", 0.125)]}
    export(published("r1", first), delta=True)
    storage = published("r2", second)
    export(storage, delta=True)
    rows = changes_at(lake)
    assert {(row["run_id"], row["base_run_id"]) for row in rows} == {("r2", "r1")}
    applied: dict[str, Any] = dict(first)
    for row in rows:
        if row["op"] == "delete":
            del applied[row["user_id"]]
        else:
            applied[row["user_id"]] = list(zip(row["item_ids"], row["scores"], strict=True))
    assert applied == second
    assert {row["user_id"] for row in rows} == {"other", "new", "gone"}
    export(published("r3", second), delta=True)
    assert {row["run_id"] for row in changes_at(lake)} == {"r2"}, "nothing changed"
    for number in (4, 5):
        export(published(f"r{number}", first if number == 4 else second), delta=True, keep=2)
    assert {row["run_id"] for row in changes_at(lake)} <= {"r4", "r5"}
    folders = (tmp_path / "lake" / "recsys_spark-recsys.recommendations_changes").glob("run_id=*")
    assert {path.name for path in folders} <= {"run_id=r4", "run_id=r5"}


def test_an_export_that_broke_off_appends_its_changes_once(
    export: Export, published: Publish, lake: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    export(published("r1"), delta=True)
    second = published("r2")
    with monkeypatch.context() as patch, pytest.raises(ExportError, match="the catalog is gone"):
        patch.setattr(Table, "manage_snapshots", _failing_at_the_flip(Table.manage_snapshots))
        export(second, delta=True)
    assert serves(lake, "r1")
    assert len(changes_at(lake)) == N_USERS
    export(second, delta=True)
    assert serves(lake, "r2")
    assert len(changes_at(lake)) == N_USERS


def _failing_at_the_flip(manage: Any) -> Any:
    def go(table: Table) -> Any:
        managed = manage(table)

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("the catalog is gone")

        monkey = managed
        monkey.set_current_snapshot = fail
        return monkey

    return go


def test_a_catalog_that_is_not_there(export: Export, published: Publish) -> None:
    with pytest.raises(ExportError, match=r"the catalog 'default' cannot be read: .*look at catalog_uri"):
        export(published("r1"), catalog_uri="sqlite:////nowhere/at/all.db")
