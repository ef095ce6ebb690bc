"""Nights whose neighbors count by what is learned of them."""

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
    Event,
    Workspace,
    checkerboard,
    half_of,
    item_id,
    seen_by_user,
    user_id,
    write_events,
)
from tests.night.oracles import SPLITS, brute_force_metrics, metrics_of_run, splits_as_matrices

pytestmark = pytest.mark.slow

K, TEMPERATURE, SHRINKAGE = 6, 0.3, 1.0
SETS = {
    "recommend.model": "neighbors",
    "neighborhood.enabled": "true",
    "neighborhood.embedding_dim": "4",
    "neighborhood.epochs": "12",
    "neighborhood.temperature": str(TEMPERATURE),
}


@pytest.fixture(scope="module")
def learned(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(spark, tmp_path_factory.mktemp("neighborhood"), SETS)
    write_events(workspace.folder / "events.csv", checkerboard())
    workspace.night(FIRST_DAY)
    return workspace


def expected_scores(ratings: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of the nearest users' ratings by learned similarity; -inf where no neighbor has the item."""
    is_seen, scores = ratings > 0, np.full(ratings.shape, -np.inf)
    embeddings = is_seen @ vectors
    embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-30)
    for user in range(len(ratings)):
        distances = np.sqrt(((ratings - ratings[user]) ** 2).sum(axis=1))
        distances[user] = np.inf
        nearest = np.lexsort((np.arange(len(ratings)), distances))[:K]
        given = 1 / (1 + distances[nearest])
        weights = given * np.exp(embeddings[nearest] @ embeddings[user] / TEMPERATURE)
        weights *= given.sum() / weights.sum()
        totals = weights @ is_seen[nearest]
        scores[user] = np.where(totals > 0, weights @ ratings[nearest] / (totals + SHRINKAGE), -np.inf)
    return scores


def rated(workspace: Workspace, splits: tuple[str, ...]) -> NDArray[np.float64]:
    ratings = np.zeros((N_USERS, N_ITEMS))
    for row in workspace.rows("interactions"):
        if row["split"] in splits:
            ratings[row["user_idx"], row["item_idx"]] = row["rating"]
    return ratings


def vectors_of(workspace: Workspace, folder: str) -> Any:
    return workspace.arrays(folder)["item_vectors"].astype(np.float64)


def test_lists_are_those_of_learned_similarities(learned: Workspace) -> None:
    users, items = learned.positions("user"), learned.positions("item")
    scores = expected_scores(rated(learned, SPLITS), vectors_of(learned, "model-neighborhood"))
    seen = seen_by_user(checkerboard())
    for user, found in learned.lists().items():
        assert found.tier == "neighbors"
        row = scores[users[user]].copy()
        row[[items[item] for item in seen[user]]] = -np.inf
        assert len(found.item_ids) == min(TOP_K, int((row > -np.inf).sum()))
        np.testing.assert_allclose(found.scores, np.sort(row)[::-1][: len(found.scores)], rtol=1e-4)
        np.testing.assert_allclose(found.scores, [row[items[item]] for item in found.item_ids], rtol=1e-4)


def test_lists_are_of_the_users_half(learned: Workspace) -> None:
    halves = [half_of(item) == half_of(user) for user, found in learned.lists().items() for item in found.item_ids]
    assert np.mean(halves) > 0.95


def test_metrics_come_from_a_similarity_that_has_not_seen_the_hold_out(learned: Workspace) -> None:
    interactions = splits_as_matrices(learned.rows("interactions"), (N_USERS, N_ITEMS))
    scores = expected_scores(rated(learned, ("train",)), vectors_of(learned, "selection-neighborhood"))
    expected = brute_force_metrics(scores, interactions, (1, 3))
    assert metrics_of_run(learned, "neighbors") == pytest.approx(expected)


def test_what_the_run_keeps_of_the_training(learned: Workspace) -> None:
    facts = learned.facts("train")["details"]["neighborhood"]
    assert facts["sampled_users"] is None
    assert len(facts["losses"]) == len(facts["validation_ndcgs"]) <= 12
    assert facts["validation_ndcgs"][facts["best_epoch"] - 1] == max(facts["validation_ndcgs"])
    assert facts["refit_epochs"] == facts["best_epoch"]
    files = {path.name for path in (learned.run_folder() / "model-neighborhood").iterdir()}
    assert files == {"item_vectors.npy"}


def test_results_do_not_depend_on_blocks_and_shards(learned: Workspace, tmp_path: Path) -> None:
    other = Workspace(learned.spark, tmp_path, {**SETS, "matrix.block_users": "5"})
    write_events(other.folder / "events.csv", checkerboard())
    other.night(FIRST_DAY)
    for table in ("recommendations", "metrics"):
        assert other.digest(table) == learned.digest(table), table


def test_a_similarity_learned_from_some_users_serves_all(learned: Workspace, tmp_path: Path) -> None:
    other = Workspace(learned.spark, tmp_path, {**SETS, "neighborhood.max_trained_users": "18"})
    write_events(other.folder / "events.csv", checkerboard())
    other.night(FIRST_DAY)
    assert other.facts("train")["details"]["neighborhood"]["sampled_users"] == 18
    assert (vectors_of(other, "model-neighborhood") != vectors_of(learned, "model-neighborhood")).any()
    assert {found.tier for found in other.lists().values()} == {"neighbors"}
    halves = [half_of(item) == half_of(user) for user, found in other.lists().items() for item in found.item_ids]
    assert np.mean(halves) > 0.95


def test_a_catalogue_of_one_user(spark: SparkSession, tmp_path: Path) -> None:
    workspace = Workspace(spark, tmp_path, SETS)
    events = [Event(user_id(0), item_id(item), "4", f"2024-03-01 0{item}:00:00") for item in range(4)]
    write_events(tmp_path / "events.csv", events)
    workspace.night(FIRST_DAY)
    assert all(found.item_ids == [] for found in workspace.lists().values())
    assert not workspace.arrays("model-neighborhood")["item_vectors"].any()


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ({"recommend.model": "embedding"}, "neighborhood.enabled = true needs recommend.model = 'neighbors'"),
        ({"neighbors.k": "all"}, "neighborhood.enabled = true needs a number for neighbors.k, got 'all'"),
        ({"neighborhood.temperature": "0"}, "neighborhood.temperature: Input should be greater than or equal to 0.01"),
    ],
)
def test_what_cannot_be_together_is_refused(
    spark: SparkSession, tmp_path: Path, sets: dict[str, str], complaint: str
) -> None:
    outcome = Workspace(spark, tmp_path, SETS).cli("run", "--run-date", FIRST_DAY, sets=sets)
    assert outcome.code == 2
    assert complaint in outcome.err
