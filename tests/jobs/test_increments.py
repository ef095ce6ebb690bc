"""Incremental nights equal one night on the full history, in what they learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import INTERACTIONS, ITEMS, USERS
from tests.jobs.conftest import Prepared, settings_of

FIRST, SECOND = "2024-03-05", "2024-03-08"
OLD = [
    ("ann", "tea", "2", "2024-03-01 10:00:00", "view"),
    ("ann", "tea", "3", "2024-03-04 10:00:00", "buy"),
    ("bob", "tea", "4", "2024-03-02 10:00:00", "view"),
    ("bob", "rye", "3", "2024-03-03 10:00:00", "buy"),
    ("ann", "jam", "2", "2024-03-08 09:00:00", "view"),  # later than the first run date
]
NEW = [
    ("ann", "tea", "5", "2024-03-07 10:00:00", "view"),
    ("cy", "jam", "3", "2024-03-06 10:00:00", "buy"),
    ("bob", "rye", "3", "2024-03-01 00:00:00", "view"),  # late, and older than what is kept
]
IMPLICIT: dict[str, Any] = {
    "feedback": {"kind": "implicit", "half_life_days": 2.0, "event_weights": {"view": 1.0, "buy": 4.0}},
}


@pytest.mark.slow
def test_two_increments_of_implicit_feedback_equal_the_full_history(prepared: Prepared, tmp_path: Path) -> None:
    """Explicit feedback: `tests/night/test_second_night.py`."""
    columns = {"user": "user", "item": "item", "timestamp": "at", "event_type": "kind"}

    def night(name: str, rows: list[tuple[str, ...]], day: str, incremental: bool) -> RunStorage:
        path = tmp_path / f"{name}-{day}.csv"
        path.write_text("\n".join(",".join(row) for row in [("user", "item", "stars", "at", "kind"), *rows]) + "\n")
        events = {"path": str(path), "format": "csv", "columns": columns, "incremental": incremental}
        return prepared(settings_of(events, tmp_path / name, **IMPLICIT), day)

    night("increments", OLD, FIRST, incremental=True)
    second = night("increments", NEW, SECOND, incremental=True)
    full = night("full", [*OLD, *NEW], SECOND, incremental=False)
    found, expected = _by_id(second), _by_id(full)
    assert found.keys() == expected.keys() == {(user, item) for user, item, *_ in [*OLD, *NEW]}
    for pair, row in expected.items():
        assert found[pair]["value"] == pytest.approx(row["value"], rel=1e-8), pair
        assert found[pair]["rating"] == pytest.approx(row["rating"], rel=1e-6), pair
        for name in ("event_count", "last_at", "last_at_by_type", "split"):
            assert found[pair][name] == row[name], (pair, name)
    facts = second.step_details("ingest")
    assert (facts["carried"], facts["input"], facts["accepted"]) == (1, len(NEW) + 1, len(NEW) + 1)
    assert second.step_details("interactions")["value_range"] == full.step_details("interactions")["value_range"]


def test_an_observed_range_only_widens(prepared: Prepared, tmp_path: Path) -> None:
    """Ratings of 2 to 4, then of 3 to 5: a 3 of the first night must not become the lowest."""

    def night(day: str, *stars: str) -> list[float]:
        path = tmp_path / f"{day}.csv"
        rows = [f"u{number},i{number},{value},2024-03-01" for number, value in enumerate(stars)]
        path.write_text("\n".join(["user,item,stars,at", *rows]) + "\n")
        storage = prepared(settings_of({"path": str(path), "format": "csv"}, tmp_path / "root"), day)
        found: list[float] = storage.step_details("interactions")["value_range"]
        return found

    assert night(FIRST, "2", "3", "4") == [2.0, 4.0]
    assert night(SECOND, "3", "5") == [2.0, 5.0]


def _by_id(storage: RunStorage) -> dict[tuple[str, str], dict[str, Any]]:
    users = {row["user_idx"]: row["user_id"] for row in storage.read(USERS).collect()}
    items = {row["item_idx"]: row["item_id"] for row in storage.read(ITEMS).collect()}
    return {
        (users[row["user_idx"]], items[row["item_idx"]]): row.asDict(recursive=True)
        for row in storage.read(INTERACTIONS).collect()
    }
