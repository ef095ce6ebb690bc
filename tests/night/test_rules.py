"""A night with all rules at once: lists by every model are those of a full ranking without rules, ruled by hand."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.lists import recommend
from recsys_spark.config import Settings, load_settings, with_changes
from recsys_spark.list_scorers import list_scorer
from recsys_spark.rules import list_rules
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import open_run
from recsys_spark.tables import ITEMS
from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    N_USERS,
    Workspace,
    checkerboard,
    item_id,
    user_id,
    write_csv,
)

pytestmark = pytest.mark.slow

TYPES = ("view", "purchase", "wish")
SHOWN_FROM = datetime.datetime.fromisoformat("2024-03-10 00:00:00")
NOBODY = "u-without-events"
TOP_K = 6

GENRES = {item: ["Drama", "drama|War", "Comedy; War", ""][item % 4] for item in range(N_ITEMS)}
FROM = {3: "2024-03-10 00:00:00", 4: "2024-03-10 00:00:01", 5: "some day", 6: "1710028800", 7: "1710028801"}
TO = {8: "2024-03-10", 9: "2024-03-10T00:00:01Z"}
STOCK = {item: ["true", "3", "YES", "0.5"][item % 4] for item in range(N_ITEMS)} | {10: "0"}
DENIED = [item_id(2), "unknown item", item_id(2)]
BLOCKED = [(user_id(user), item_id((user * 5) % N_ITEMS)) for user in range(0, N_USERS, 2)] + [("nobody", item_id(1))]
CANDIDATES = [(user_id(3), item_id(item)) for item in (0, 1, 2, 13, 15)] + [(user_id(6), "unknown item")]
LENGTHS = {0: "2", 1: "0", 2: "many", 4: "99", 8: " 4 "}
FACTORS = [(item_id(12), 8.0), (item_id(12), 0.5), (item_id(13), 0.001), (item_id(1), 1.5)]
SEEN_DAYS = {"view": 3.0, "wish": 0.0}


@dataclass(frozen=True)
class Ruled:
    """A run with rules, and its settings; `workspace` holds what it has published."""

    workspace: Workspace
    storage: RunStorage
    settings: Settings

    def lists(self, model: str, has_rules: bool) -> dict[str, dict[str, Any]]:
        """Rows by user, by a model of the run: all items of all users without rules."""
        changes: dict[str, dict[str, Any]] = {"recommend": {"model": model}}
        settings = with_changes(self.settings, changes)
        if not has_rules:
            settings = settings.model_copy(update={"rules": type(settings.rules)()})
        blocks, scorer = list_scorer(self.storage, settings, "model")
        folder = self.storage.fetch(ITEMS, self.storage.scratch)
        ids = distribute_ids(self.storage.spark, folder, "item", self.storage.scratch / f"ids-{model}-{has_rules}")
        k, rules = (TOP_K, list_rules(self.storage, settings)) if has_rules else (N_ITEMS, None)
        frame = recommend(blocks, scorer, ids, k, has_rules, None, rules).frame()
        return {row["user_id"]: row.asDict() for row in frame.collect()}


@pytest.fixture(scope="module")
def ruled(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Ruled:
    folder = tmp_path_factory.mktemp("rules")
    write_inputs(folder)

    def table(name: str) -> str:
        return f'{{path = "{folder}/{name}.csv", format = "csv"}}'

    sets = {
        "events.columns.event_type": "type",
        "items": f'{{path = "{folder}/items.csv", format = "csv", id = "item", attributes = '
        '{genre = "genre", from = "from", to = "to", stock = "stock"}}',
        "users": f'{{path = "{folder}/users.csv", format = "csv", id = "user", attributes = {{most = "most"}}}}',
        "recommend.top_k": str(TOP_K),
        "recommend.model": "hybrid",
        "hybrid.components": '["embedding", "popularity", "neighbors", "ease"]',
        "ease.l2": "2",
        "rules.deny_items": table("denied"),
        "rules.deny_categories": '{genre = ["COMEDY"]}',
        "rules.valid_from": "from",
        "rules.valid_to": "to",
        "rules.in_stock": "stock",
        "rules.deny_pairs": table("blocked"),
        "rules.candidates": table("candidates"),
        "rules.list_length": "most",
        "rules.seen_days": "{view = 3.0, wish = 0.0}",
        "rules.boosts": '[{attribute = "genre", value = "war", factor = 2.0}]',
        "rules.item_boosts": table("factors"),
        "rules.active_days": "1000",  # all but who has no event, and is asked for
        "rules.requested_users": table("requested"),
        "audit.min_user_coverage": "0.5",
    }
    workspace = Workspace(spark, folder, sets)
    run_id = workspace.night(FIRST_DAY)
    storage = open_run(spark, str(workspace.root), run_id)
    storage.scratch = tmp_path_factory.mktemp("scratch")
    overrides = [f"{key}={value}" for key, value in sets.items()]
    return Ruled(workspace, storage, load_settings(workspace.settings, overrides))


def write_inputs(folder: Path) -> None:
    events = [(*event, type_of(event.user, event.item)) for event in checkerboard()]
    write_csv(folder / "events.csv", ["user", "item", "stars", "at", "type"], events)
    of_items = [
        (item_id(item), GENRES[item], FROM.get(item, ""), TO.get(item, ""), STOCK[item]) for item in range(N_ITEMS)
    ]
    write_csv(folder / "items.csv", ["item", "genre", "from", "to", "stock"], of_items)
    of_users = [(user_id(user), LENGTHS.get(user, "")) for user in range(N_USERS)] + [(NOBODY, "")]
    write_csv(folder / "users.csv", ["user", "most"], of_users)
    write_csv(folder / "denied.csv", ["item_id"], [[item] for item in DENIED])
    write_csv(folder / "blocked.csv", ["user_id", "item_id"], BLOCKED)
    write_csv(folder / "candidates.csv", ["user_id", "item_id"], CANDIDATES)
    write_csv(folder / "requested.csv", ["user_id"], [[NOBODY], [user_id(1)], [user_id(6)], ["stranger"], [user_id(9)]])
    write_csv(folder / "factors.csv", ["item_id", "factor"], [(item, str(factor)) for item, factor in FACTORS])


def type_of(user: str, item: str) -> str:
    return TYPES[(int(user[1:]) + int(item[1:])) % len(TYPES)]


def verdict_of(item: int) -> str:
    if item_id(item) in DENIED or "Comedy" in GENRES[item]:
        return "denied"
    is_out = item in (4, 5, 7, 8, 10)  # a second too late, no time, a second too late, over, none left
    return "unavailable" if is_out else "listed"


def factor_of(item: int) -> float:
    factor = {12: 8.0, 13: 0.001, 1: 1.5}.get(item, 1.0)
    return factor * (2.0 if "war" in GENRES[item].lower() else 1.0)


def hidden_of(user: str) -> tuple[set[str], set[str]]:
    """What the user still counts as having seen, and what is blocked."""
    seen = set()
    for event in checkerboard():
        if event.user == user:
            age = SHOWN_FROM - datetime.datetime.fromisoformat(event.at)
            days = SEEN_DAYS.get(type_of(event.user, event.item))
            if days is None or age < datetime.timedelta(days=days):
                seen.add(event.item)
    return seen, {item for name, item in BLOCKED if name == user}


def length_of(user: str) -> int:
    given = {"u00": 2, "u01": 0, "u08": 4}
    return given.get(user, TOP_K)


def expected_list(
    user: str, ranking: dict[str, float], positions: dict[str, int]
) -> tuple[list[str], dict[str, float], dict[str, int] | None]:
    """The list, its scores, and what was left out, by the user's scores of all items without rules."""
    every = {item_id(item): item for item in range(N_ITEMS)}
    seen, blocked = hidden_of(user)
    candidates = {item for name, item in CANDIDATES if name == user} if user in ("u03", "u06") else set(every)
    reasons: dict[str, int] = {}
    open_items = []
    for name, item in every.items():
        reason = None
        if verdict_of(item) != "listed":
            reason = verdict_of(item)
        elif name not in candidates:
            reason = "not_candidate"
        elif name in blocked:
            reason = "denied"
        elif name in seen:
            reason = "seen"
        elif name not in ranking:
            reason = "cold"
        else:
            open_items.append(name)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1

    def boosted(name: str) -> float:
        score, factor = ranking[name], factor_of(every[name])
        return float(np.float32(score * factor if score > 0 else score / factor))

    best = sorted(open_items, key=lambda name: (-boosted(name), positions[name]))[: length_of(user)]
    is_short = len(best) < length_of(user)
    return best, {name: boosted(name) for name in best}, reasons if is_short else None


@pytest.mark.parametrize("model", ["hybrid", "embedding", "neighbors", "ease"])
def test_lists_are_those_of_a_full_ranking_ruled_by_hand(ruled: Ruled, model: str) -> None:
    full, found = ruled.lists(model, has_rules=False), ruled.lists(model, has_rules=True)
    assert set(found) == set(full) == {*(user_id(user) for user in range(N_USERS)), NOBODY}
    popular = dict(zip(full[NOBODY]["item_ids"], full[NOBODY]["scores"], strict=True))
    positions, n_short = ruled.workspace.positions("item"), 0
    for user, row in found.items():
        ranking = dict(zip(full[user]["item_ids"], full[user]["scores"], strict=True))
        best, scores, reasons = expected_list(user, ranking, positions)
        if model == "neighbors" and not best and length_of(user):  # nothing of the neighbors is left
            best, scores, reasons = expected_list(user, popular, positions)
        assert row["item_ids"] == best, user
        assert row["scores"] == pytest.approx([scores[item] for item in best], rel=1e-5, abs=1e-6)
        assert row["left_out"] == reasons, user
        n_short += reasons is not None
    assert 2 <= n_short < len(found)
    assert found["u03"]["left_out"]["not_candidate"] > 0
    assert found["u06"]["item_ids"] == []
    assert found["u01"]["item_ids"] == [] and found["u01"]["left_out"] is None


def test_rules_change_much_here(ruled: Ruled) -> None:
    """Without them the test above would pass, too."""
    full, found = ruled.lists("embedding", has_rules=False), ruled.lists("embedding", has_rules=True)
    plain = {user: [item for item in row["item_ids"] if item not in hidden_of(user)[0]] for user, row in full.items()}
    assert sum(found[user]["item_ids"] != plain[user][: length_of(user)] for user in found) > len(found) / 2


def test_a_short_list_is_shown_with_what_it_lacks(ruled: Ruled) -> None:
    rows = {row["user_id"]: row for row in ruled.workspace.rows("recommendations")}
    short = rows["u03"]
    outcome = ruled.workspace.cli("show", "--user", "u03")
    assert outcome.code == 0, outcome.err
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dict(short["left_out"]).items()))
    assert f"shorter than it was to be; not listed: {reasons}" in outcome.out
    full = next(user for user, row in rows.items() if row["left_out"] is None and row["item_ids"])
    assert "not listed" not in ruled.workspace.cli("show", "--user", full).out


def test_each_requested_user_is_accounted_for(ruled: Ruled) -> None:
    """One has no event, one wants no list, one may be shown nothing that there is, one is not known."""
    rows = {row["user_id"]: (row["outcome"], row["reason"]) for row in ruled.workspace.rows("requested_users")}
    assert rows == {
        NOBODY: ("fell_back", None),
        "u01": ("refused", "no_list_wanted"),
        "u06": ("refused", "nothing_left"),
        "u09": ("scored", None),
        "stranger": ("refused", "unknown_user"),
    }
    counted = ruled.workspace.facts("recommend")["details"]["requested"]
    assert counted == {"fell_back": 1, "scored": 1, "no_list_wanted": 1, "nothing_left": 1, "unknown_user": 1}


def test_the_night_publishes_them_and_says_what_it_did(ruled: Ruled) -> None:
    published, again = ruled.workspace.lists(), ruled.lists("hybrid", has_rules=True)
    assert {user: row.item_ids for user, row in published.items()} == {
        user: row["item_ids"] for user, row in again.items()
    }
    facts = ruled.workspace.manifest()["steps"]["rules"]["details"]
    verdicts = [verdict_of(item) for item in range(N_ITEMS)]
    assert facts["verdicts"] == {name: verdicts.count(name) for name in set(verdicts)}
    assert facts["boosts"] == [{"attribute": "genre", "value": "war", "factor": 2.0}]
    factors = [round(factor_of(item), 6) for item in range(N_ITEMS) if verdict_of(item) == "listed"]
    counts = {factor: factors.count(factor) for factor in set(factors) - {1.0}}
    assert {each["factor"]: each["items"] for each in facts["factors"]} == counts
    assert (facts["users"], facts["unreadable_lengths"], facts["shortened_lengths"]) == (N_USERS + 1, 1, 1)
    assert facts["rows"]["deny_items"] == {"rows": 3, "unknown": 1}
    assert facts["rows"]["deny_pairs"] == {"rows": 16, "unknown": 1}
    assert facts["rows"]["candidates"] == {"rows": 6, "unknown": 1}
    lists = ruled.workspace.manifest()["steps"]["recommend"]["details"]
    assert lists["short_lists"] == sum(row["left_out"] is not None for row in ruled.workspace.rows("recommendations"))
