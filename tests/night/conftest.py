"""Nights that several tests look at; none of these tests changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.models.interactions import TrainingPairs
from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    N_USERS,
    SECOND_DAY,
    Event,
    Workspace,
    checkerboard,
    item_id,
    unseen_item,
    user_id,
    write_csv,
    write_events,
)

UNSEEN_USER, UNSEEN_ITEM = "u-without-events", "i-without-events"
LATER = [Event(user_id(user), unseen_item(user), "5", f"{SECOND_DAY} 12:00:00") for user in (2, 3, 4)]
INCREMENTAL = {"events.incremental": "true", "events.max_quarantined_share": "0.1"}
REJECTED = [
    Event("", item_id(1), "5", "2024-03-01 10:00:00"),
    Event(user_id(1), item_id(1), "6", "2024-03-01 10:00:00"),
    Event(user_id(1), item_id(1), "5", "some day"),
]
NEW_EVENTS = [
    *[Event("u-new", item_id(item), "5", f"{SECOND_DAY} 0{item}:00:00") for item in (0, 2, 4, 6)],
    *[Event(user_id(user), "i-new", "4", f"{SECOND_DAY} 09:00:00") for user in range(0, 20, 2)],
    Event(user_id(0), checkerboard()[0].item, "3", f"{SECOND_DAY} 10:00:00"),
]


@dataclass(frozen=True)
class TwoNights:
    """Two incremental nights on one root, and what the first one printed and trained on."""

    workspace: Workspace
    first: str
    second: str
    printed: str
    printed_second: str
    fits: list[dict[str, Any]]


@pytest.fixture(scope="session")
def nights(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TwoNights:
    """Night one: the checkerboard, three rejected rows, three rows of tomorrow. Night two: some new rows."""
    workspace = Workspace(spark, tmp_path_factory.mktemp("nights"), INCREMENTAL, is_described=True)
    write_inputs(workspace)
    fits: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        _record_fits(patch, fits)
        first = workspace.cli("run", "--run-date", FIRST_DAY)
    assert first.code == 0, first.out + first.err
    first_id = workspace.newest(FIRST_DAY)
    second = workspace.cli("run", "--run-date", SECOND_DAY, sets={"events.path": str(workspace.folder / "new.csv")})
    assert second.code == 0, second.out + second.err
    return TwoNights(workspace, first_id, workspace.newest(SECOND_DAY), first.out, second.out, fits)


def write_inputs(workspace: Workspace) -> None:
    """The events of both nights, and all users and items with one of each that has no event."""
    write_events(workspace.folder / "events.csv", [*checkerboard(), *REJECTED, *LATER])
    write_events(workspace.folder / "new.csv", NEW_EVENTS)
    users = [user_id(user) for user in range(N_USERS)] + [UNSEEN_USER]
    items = [item_id(item) for item in range(N_ITEMS)] + [UNSEEN_ITEM]
    write_csv(workspace.folder / "users.csv", ["name"], [[user] for user in users])
    write_csv(workspace.folder / "items.csv", ["code", "label"], [[item, f"Title of {item}"] for item in items])


def _record_fits(patch: pytest.MonkeyPatch, fits: list[dict[str, Any]]) -> None:
    from recsys_spark import learning

    fit_embeddings = learning.fit_embeddings

    def record(pairs: TrainingPairs, *arguments: Any, **options: Any) -> Any:
        fits.append({"pairs": pairs, "validation": options.get("validation")})
        return fit_embeddings(pairs, *arguments, **options)

    patch.setattr(learning, "fit_embeddings", record)
