"""Nights that train on a sample of the users and fold all of them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.night.catalogue import (
    FIRST_DAY,
    N_USERS,
    SECOND_DAY,
    Event,
    Workspace,
    checkerboard,
    half_of,
    item_id,
    seen_by_user,
    write_events,
)

pytestmark = pytest.mark.slow

SAMPLED = 18
SETS = {"model.max_trained_users": str(SAMPLED)}
BEGINNER = Event("u98", item_id(0), "5", "2024-03-05 10:00:00")


@pytest.fixture(scope="module")
def sampled(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(spark, tmp_path_factory.mktemp("sampled"), SETS)
    write_events(workspace.folder / "events.csv", [*checkerboard(), BEGINNER])
    workspace.night(FIRST_DAY)
    return workspace


def test_all_users_have_lists_of_their_taste(sampled: Workspace) -> None:
    lists, seen = sampled.lists(), seen_by_user(checkerboard())
    assert len(lists) == N_USERS + 1
    for user, had in seen.items():
        assert lists[user].tier == "embedding"
        assert {half_of(item) for item in lists[user].item_ids} == {half_of(user)}
        assert not set(lists[user].item_ids) & had
    assert lists[BEGINNER.user].tier == "embedding", "one interaction is enough"


def test_the_driver_has_seen_the_sample_alone(sampled: Workspace) -> None:
    facts = sampled.facts("train")["details"]
    assert facts["sampled_users"] == SAMPLED
    assert facts["trained_users"] <= SAMPLED
    arrays = sampled.arrays("model")
    assert arrays["user_vectors"].shape == (0, 4)
    assert arrays["item_vectors"].shape == (16, 4)
    counts = np.zeros(16)
    positions = sampled.positions("item")
    for event in [*checkerboard(), BEGINNER]:
        counts[positions[event.item]] += 1
    expected = np.log1p(counts) / np.log1p(counts.max())
    np.testing.assert_allclose(arrays["popularity"], expected, rtol=1e-6, err_msg="popularity is that of all users")


def test_similar_users_are_found_among_all(sampled: Workspace) -> None:
    rows = sampled.rows("similar_users")
    assert len(rows) == N_USERS + 1
    near = [(row["user_id"], other) for row in rows for other in row["similar_user_ids"][:3]]
    assert np.mean([half_of(one) == half_of(other) for one, other in near]) > 0.9


def test_the_next_night_starts_warm_and_may_train_on_everybody(sampled: Workspace, tmp_path: Path) -> None:
    workspace = sampled.copy(tmp_path / "copy")
    first = workspace.facts("train")["details"]
    workspace.night(SECOND_DAY)
    second = workspace.facts("train")["details"]
    assert second["warm_start"]
    assert second["losses"][0] < first["losses"][0]
    workspace.night("2024-03-11", sets={"model.max_trained_users": "1000"})
    third = workspace.facts("train")["details"]
    assert (third["warm_start"], third["sampled_users"]) == (True, None)
    assert third["trained_users"] == N_USERS + 1
    workspace.night("2024-03-12")
    assert workspace.facts("train")["details"]["warm_start"]


def test_results_do_not_depend_on_blocks(sampled: Workspace, tmp_path: Path) -> None:
    other = Workspace(sampled.spark, tmp_path, {**SETS, "matrix.block_users": "5"})
    write_events(other.folder / "events.csv", [*checkerboard(), BEGINNER])
    other.night(FIRST_DAY)
    for table in ("recommendations", "similar_users", "metrics"):
        assert other.digest(table) == sampled.digest(table), table


def test_a_sample_without_anything_to_train_on_stops_the_night(spark: SparkSession, tmp_path: Path) -> None:
    sets = {"model.max_trained_users": "1", "model.min_item_interactions": "2"}
    workspace = Workspace(spark, tmp_path, sets)
    write_events(workspace.folder / "events.csv", checkerboard())
    outcome = workspace.cli("run", "--run-date", FIRST_DAY)
    assert outcome.code == 1
    assert "no interactions are left to train on" in outcome.err
