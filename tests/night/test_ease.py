"""Nights whose lists come from a linear model of items by items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    N_USERS,
    TOP_K,
    Workspace,
    checkerboard,
    half_of,
    seen_by_user,
    user_id,
    write_csv,
    write_events,
)
from tests.night.conftest import UNSEEN_ITEM, UNSEEN_USER
from tests.night.oracles import SPLITS, brute_force_metrics, metrics_of_run, splits_as_matrices

pytestmark = pytest.mark.slow

L2 = 2.0
SETS = {"recommend.model": "ease", "ease.l2": str(L2)}


@pytest.fixture(scope="module")
def ease(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The checkerboard, and a user and an item without an event."""
    workspace = Workspace(spark, tmp_path_factory.mktemp("ease"), SETS, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    return workspace


def write_inputs(workspace: Workspace) -> None:
    write_events(workspace.folder / "events.csv", checkerboard())
    write_csv(workspace.folder / "users.csv", ["name"], [[user_id(0)], [UNSEEN_USER]])
    write_csv(workspace.folder / "items.csv", ["code", "label"], [[UNSEEN_ITEM, "Unseen"]])


def expected_scores(pattern: NDArray[Any]) -> NDArray[np.float64]:
    """The closed form of the paper, by another inverse; -inf for items that nobody has."""
    gram = pattern.T @ pattern + L2 * np.eye(pattern.shape[1])
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.where(pattern.any(axis=0), pattern @ weights, -np.inf)


def pattern_of(workspace: Workspace, splits: tuple[str, ...]) -> NDArray[np.float64]:
    matrices = splits_as_matrices(workspace.rows("interactions"), (N_USERS + 1, N_ITEMS + 1))
    return np.sum([matrices[split] for split in splits], axis=0, dtype=np.float64)


def test_lists_are_those_of_the_closed_form(ease: Workspace) -> None:
    users, items = ease.positions("user"), ease.positions("item")
    scores = expected_scores(pattern_of(ease, SPLITS))
    for user, had in seen_by_user(checkerboard()).items():
        found, row = ease.lists()[user], scores[users[user]].copy()
        row[[items[item] for item in had]] = -np.inf
        assert found.tier == "ease"
        np.testing.assert_allclose(found.scores, np.sort(row)[::-1][:TOP_K], atol=1e-5)
        np.testing.assert_allclose(found.scores, [row[items[item]] for item in found.item_ids], atol=1e-5)


def test_lists_are_mostly_of_the_users_half(ease: Workspace) -> None:
    lists, seen = ease.lists(), seen_by_user(checkerboard())
    assert np.mean([half_of(item) == half_of(user) for user in seen for item in lists[user].item_ids]) > 0.75


def test_users_without_items_get_the_popular_ones(ease: Workspace) -> None:
    found = ease.lists()[UNSEEN_USER]
    assert found.tier == "popularity"
    assert len(found.item_ids) == TOP_K
    assert UNSEEN_ITEM not in {item for each in ease.lists().values() for item in each.item_ids}


def test_metrics_come_from_weights_without_the_hold_out(ease: Workspace) -> None:
    scores = expected_scores(pattern_of(ease, ("train",)))
    interactions = splits_as_matrices(ease.rows("interactions"), (N_USERS + 1, N_ITEMS + 1))
    assert metrics_of_run(ease, "ease") == pytest.approx(brute_force_metrics(scores, interactions, (1, 3)))


def test_results_do_not_depend_on_blocks(ease: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_spark.blockwise.scorers.SCORES_AT_ONCE", 40)
    other = Workspace(ease.spark, tmp_path, {**SETS, "matrix.block_users": "5"}, is_described=True)
    write_inputs(other)
    other.night(FIRST_DAY)
    for table in ("recommendations", "metrics"):
        assert other.digest(table) == ease.digest(table), table


def test_too_many_items_stop_the_night(ease: Workspace, tmp_path: Path) -> None:
    workspace = ease.copy(tmp_path / "copy")
    outcome = workspace.cli("run", "--run-date", FIRST_DAY, sets={"ease.max_items": "15"})
    assert outcome.code == 1
    assert "weights of 16 x 16 items, over ease.max_items = 15" in outcome.err
