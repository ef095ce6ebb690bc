"""Recommendations in an Iceberg table, and the reader of them: applications may copy this file. No Spark here.

The table has `user_id`, `item_ids`, `scores`, `tier`, one row a user. Branch `main` is what is served; its snapshot
says in its summary which run it is of. With `delta = true` the table `<table>_changes` has what each run changed.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from recsys_spark.sinks.contract import Recommendations, Served

RUN_ID, RUN_DATE, BASE_RUN_ID = "recsys.run-id", "recsys.run-date", "recsys.base-run-id"


def run_of(snapshot: Snapshot | None) -> str | None:
    """The run that a snapshot is of; None for one that is of none, as the first of a table."""
    return None if snapshot is None or snapshot.summary is None else snapshot.summary.get(RUN_ID)


def properties_of(snapshot: Snapshot) -> dict[str, str]:
    """What says which run a snapshot is of."""
    found = {} if snapshot.summary is None else snapshot.summary.additional_properties
    return {name: value for name, value in found.items() if name in (RUN_ID, RUN_DATE, BASE_RUN_ID)}


class RecommendationReader:
    """Answers from the snapshot that is current at each question. It reads files: for some users, not for millions."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def run(self) -> Served | None:
        """What is served; None before the first export."""
        snapshot = self._table.refresh().current_snapshot()
        run_id = run_of(snapshot)
        if snapshot is None or snapshot.summary is None or run_id is None:
            return None
        return Served(run_id, date.fromisoformat(str(snapshot.summary[RUN_DATE])))

    def recommend(self, user_id: str, k: int | None = None) -> Recommendations | None:
        """The first `k` of a user's list, all of it when None; None for a user without one."""
        snapshot = self._table.refresh().current_snapshot()
        if snapshot is None:
            return None
        equals: Any = EqualTo  # its own types say less than it takes
        rows = self._table.scan(equals("user_id", user_id), snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
        return list(zip(rows[0]["item_ids"], rows[0]["scores"], strict=True))[:k] if rows else None
