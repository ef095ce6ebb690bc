"""A second night builds on the first: positions, interactions, later events, the model."""

from __future__ import annotations

import datetime
from typing import Any

from tests.night.catalogue import (
    FIRST_DAY,
    N_USERS,
    SECOND_DAY,
    Event,
    Workspace,
    checkerboard,
    item_id,
    user_id,
)
from tests.night.conftest import LATER, NEW_EVENTS, REJECTED, TwoNights


def test_the_parent_is_the_first_night_and_the_pointer_moved(nights: TwoNights) -> None:
    manifest = nights.workspace.manifest(nights.second)
    assert (manifest["parent"], manifest["run_date"]) == (nights.first, SECOND_DAY)
    assert nights.workspace.current() == nights.second


def test_positions_are_kept_and_new_ids_follow(nights: TwoNights) -> None:
    for name, new in (("user", {"u-new"}), ("item", {"i-new"})):
        before = nights.workspace.positions(name, nights.first)
        after = nights.workspace.positions(name, nights.second)
        assert {external: after[external] for external in before} == before
        assert after.keys() - before.keys() == new
        assert {after[external] for external in new} == {len(before)}


def test_two_nights_keep_what_the_full_history_holds(nights: TwoNights) -> None:
    history = [*checkerboard(), *LATER, *NEW_EVENTS]
    last: dict[tuple[str, str], Event] = {}
    counts: dict[tuple[str, str], int] = {}
    for event in sorted(history, key=lambda event: event.at):
        last[event.user, event.item] = event
        counts[event.user, event.item] = counts.get((event.user, event.item), 0) + 1
    expected = {
        pair: (float(event.stars), counts[pair], datetime.datetime.fromisoformat(event.at).replace(tzinfo=datetime.UTC))
        for pair, event in last.items()
    }
    assert max(counts.values()) == 2, "an event of the second night renews one of the first"
    assert _pairs(nights.workspace, nights.second) == expected


def test_later_events_are_carried_over_and_count_as_input(nights: TwoNights) -> None:
    facts = nights.workspace.facts("ingest", nights.second)["details"]
    assert facts["carried"] == len(LATER)
    assert facts["input"] == len(NEW_EVENTS) + len(LATER) == facts["accepted"]
    assert (facts["later"], facts["quarantined"]) == (0, 0), "what was quarantined before is not carried"
    pairs = _pairs(nights.workspace, nights.first).keys()
    assert not any((event.user, event.item) in pairs for event in LATER)


def test_the_model_starts_from_the_one_of_the_night_before(nights: TwoNights) -> None:
    first = nights.workspace.facts("train", nights.first)["details"]
    second = nights.workspace.facts("train", nights.second)["details"]
    assert (first["warm_start"], second["warm_start"]) == (False, True)
    assert second["losses"][0] < first["losses"][0]
    assert "warm start" in nights.printed_second


def test_new_users_and_items_are_in_the_lists_of_the_second_night(nights: TwoNights) -> None:
    lists = nights.workspace.lists(nights.second)
    assert lists["u-new"].tier == "embedding"
    assert {item for item in lists["u-new"].item_ids if item != "i-new"} <= {item_id(item) for item in range(8, 16, 2)}
    assert any("i-new" in lists[user_id(user)].item_ids for user in range(0, N_USERS, 2))
    # Of those who still have three of their own half to come.
    assert not any("i-new" in lists[user_id(user)].item_ids for user in range(5, N_USERS, 2))


def test_the_first_night_stays_as_it_was_published(nights: TwoNights) -> None:
    manifest = nights.workspace.manifest(nights.first)
    assert manifest["run_date"] == FIRST_DAY
    assert manifest["tables"]["events"]["rows"] == len(checkerboard()) + len(REJECTED) + len(LATER)
    assert nights.workspace.table("events", nights.first).num_rows == manifest["tables"]["events"]["rows"]


def _pairs(workspace: Workspace, run_id: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    users = {position: user for user, position in workspace.positions("user", run_id).items()}
    items = {position: item for item, position in workspace.positions("item", run_id).items()}
    return {
        (users[row["user_idx"]], items[row["item_idx"]]): (row["value"], row["event_count"], row["last_at"])
        for row in workspace.rows("interactions", run_id)
    }
