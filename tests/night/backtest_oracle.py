"""How published lists did, in plain Python from the Parquet files of two runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tests.night.catalogue import Workspace
from tests.night.oracles import metrics_of_list, spread

KS = (1, 3)
Pair = tuple[int, int]
Ranking = dict[int, list[int]]


def pairs_of(workspace: Workspace, run_id: str) -> dict[Pair, dict[str, Any]]:
    return {(row["user_idx"], row["item_idx"]): row for row in workspace.rows("interactions", run_id)}


def brute_force_backtest(
    workspace: Workspace, run_id: str, lists_run_id: str, excludes_seen: bool = True
) -> dict[tuple[str, str, int], tuple[float, int]]:
    """Value and users by model, metric and k."""
    before, tonight = pairs_of(workspace, lists_run_id), pairs_of(workspace, run_id)
    relevant: dict[int, set[int]] = {}
    for (user, item), row in tonight.items():
        old = before.get((user, item))
        if old is None or (not excludes_seen and _is_repeated(row, old)):
            relevant.setdefault(user, set()).add(item)
    lists, tiers = _lists(workspace, lists_run_id)
    lists = {user: items for user, items in lists.items() if user in relevant}
    counts = Counter(item for _, item in before)
    ranked = sorted(counts, key=lambda item: (-counts[item], item))
    seen = {user: {item for other, item in before if other == user and excludes_seen} for user in lists}
    named = {"published": lists, "popularity": {u: [i for i in ranked if i not in seen[u]] for u in lists}}
    kinds = {tiers[user] for user in lists}
    if len(kinds) > 1:
        named |= {f"published:{tier}": {u: lists[u] for u in lists if tiers[u] == tier} for tier in kinds}
    known = _matrix(before, workspace.table("users", lists_run_id).num_rows, _items(workspace, lists_run_id))
    return {
        (model, metric, k): (value, len(each))
        for model, each in named.items()
        for k in KS
        for metric, value in _measure(each, relevant, known, k).items()
    }


def _is_repeated(row: dict[str, Any], old: dict[str, Any]) -> bool:
    return bool(row["event_count"] > old["event_count"] or row["last_at"] > old["last_at"])


def _lists(workspace: Workspace, run_id: str) -> tuple[Ranking, dict[int, str]]:
    users, items = workspace.positions("user", run_id), workspace.positions("item", run_id)
    found = {users[user]: each for user, each in workspace.lists(run_id).items()}
    return {u: [items[i] for i in each.item_ids] for u, each in found.items()}, {
        u: each.tier for u, each in found.items()
    }


def _items(workspace: Workspace, run_id: str) -> int:
    return workspace.table("items", run_id).num_rows


def _matrix(pairs: dict[Pair, Any], n_users: int, n_items: int) -> Any:
    matrix = np.zeros((n_users, n_items), bool)
    for user, item in pairs:
        matrix[user, item] = True
    return matrix


def _measure(lists: Ranking, relevant: dict[int, set[int]], known: Any, k: int) -> dict[str, float]:
    sums: dict[str, float] = {}
    for user, items in lists.items():
        hits = [item in relevant[user] for item in items[:k]]
        for name, value in metrics_of_list(hits, len(relevant[user]), k).items():
            sums[name] = sums.get(name, 0.0) + value / len(lists)
    return sums | spread([item for items in lists.values() for item in items[:k]], known)
