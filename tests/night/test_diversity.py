"""Nights whose lists are re-ranked: checked against picks by plain Python from what the models score."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.models.export import load_embeddings
from tests.kernels.cases import picked_greedily
from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    N_USERS,
    TOP_K,
    Workspace,
    checkerboard,
    item_id,
    user_id,
    write_csv,
    write_events,
)
from tests.night.conftest import UNSEEN_USER
from tests.night.oracles import brute_force_metrics, metrics_of_run, splits_as_matrices
from tests.night.test_content import title

pytestmark = pytest.mark.slow

WEIGHT, POOL, MOST = 0.4, 7, 1
SETS = {
    "items.attributes": '{title = "label", genres = "genres"}',
    "content.text": '["title"]',
    "content.min_items": "1",
    "content.embedding_dim": "8",
    "diversity.weight": str(WEIGHT),
    "diversity.category": "genres",
    "diversity.max_per_category": str(MOST),
    "diversity.candidates": str(POOL),
}


def genres(number: int) -> set[str]:
    """One of three, and a rare one beside it."""
    return {f"g{number // 2 % 3}", *(["rare"] if number % 5 == 0 else [])}


@pytest.fixture(scope="module")
def diverse(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The checkerboard, with genres, and a user without an event, who gets what is popular."""
    workspace = Workspace(spark, tmp_path_factory.mktemp("diverse"), SETS, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    return workspace


def write_inputs(workspace: Workspace) -> None:
    write_events(workspace.folder / "events.csv", checkerboard())
    described = [[item_id(item), title(item), " | ".join(sorted(genres(item)))] for item in range(N_ITEMS)]
    write_csv(workspace.folder / "items.csv", ["code", "label", "genres"], described)
    write_csv(workspace.folder / "users.csv", ["name"], [*([user_id(user)] for user in range(N_USERS)), [UNSEEN_USER]])


def scores_of(workspace: Workspace, fit: str) -> NDArray[np.float32]:
    users, items = load_embeddings(workspace.run_folder() / fit).scoring_vectors()
    return (users.astype(np.float64) @ items.T.astype(np.float64)).astype(np.float32)


def picks(
    workspace: Workspace, scores: NDArray[np.float32], is_hidden: NDArray[np.bool_], vectors: NDArray[np.float32]
) -> list[list[int]]:
    """Every user's list from his best items, with the rules of the settings."""
    capped = "diversity.category" in workspace.sets
    categories: list[set[str]] = [set()] * N_ITEMS
    for external, place in workspace.positions("item").items():
        categories[place] = genres(int(external[1:]))
    numbers = {name: number for number, name in enumerate(sorted(set().union(*categories)))}
    numbered = [{numbers[name] for name in each} for each in categories]
    lists = []
    for row, hidden in zip(scores, is_hidden, strict=True):
        ranked = [int(item) for item in np.lexsort((np.arange(len(row)), -row)) if not hidden[item]][:POOL]
        values = [float(row[item]) for item in ranked]
        lists.append(picked_greedily(ranked, values, TOP_K, WEIGHT, vectors, numbered if capped else None, MOST))
    return lists


def splits_of(workspace: Workspace) -> dict[str, NDArray[np.bool_]]:
    return splits_as_matrices(workspace.rows("interactions"), (N_USERS + 1, N_ITEMS))


def require_expected_lists(workspace: Workspace, vectors: NDArray[np.float32]) -> None:
    """Every published list is what plain Python picks, with the scores of the model."""
    users, items, scores = workspace.positions("user"), workspace.positions("item"), scores_of(workspace, "model")
    wanted = picks(workspace, scores, np.any(list(splits_of(workspace).values()), axis=0), vectors)
    falling = []
    for user, found in workspace.lists().items():
        assert [items[item] for item in found.item_ids] == wanted[users[user]], user
        assert found.scores == scores[users[user]][wanted[users[user]]].tolist()
        assert found.tier == ("popularity" if user == UNSEEN_USER else "embedding")
        falling.append(found.scores == sorted(found.scores, reverse=True))
    assert not all(falling)


def test_lists_are_picked_from_the_best_items(diverse: Workspace) -> None:
    require_expected_lists(diverse, diverse.arrays("content")["content_embeddings"])
    held = [[genre for item in found.item_ids for genre in genres(int(item[1:]))] for found in diverse.lists().values()]
    # Some users have had all of a genre, and their lists are filled up.
    assert np.mean([len(each) == len(set(each)) for each in held]) > 0.5


def test_metrics_are_of_the_lists_before_and_after(diverse: Workspace) -> None:
    splits, scores = splits_of(diverse), scores_of(diverse, "selection")
    vectors = diverse.arrays("content")["content_embeddings"]
    hidden = splits["train"] | splits["validation"]
    wanted = picks(diverse, scores, hidden, vectors)
    in_place = np.full(scores.shape, -np.inf)
    for user, items in enumerate(wanted):
        in_place[user, items] = -np.arange(len(items))
    by_score = [
        np.lexsort((np.arange(N_ITEMS), np.where(hidden[u], np.inf, -scores[u])))[:TOP_K] for u in range(N_USERS + 1)
    ]
    for model, ranking, lists in (
        ("embedding", in_place, wanted),
        ("embedding_by_score", scores, by_score),
    ):
        expected = brute_force_metrics(ranking, splits, (1, TOP_K))
        measured = np.flatnonzero(splits["test"].any(axis=1))
        expected[f"intra_list_diversity@{TOP_K}"] = np.mean([diversity_of(lists[u], vectors) for u in measured])
        assert metrics_of_run(diverse, model) == pytest.approx(expected), model
    after, before, popular = (
        metrics_of_run(diverse, model) for model in ("embedding", "embedding_by_score", "popularity")
    )
    assert after[f"intra_list_diversity@{TOP_K}"] > before[f"intra_list_diversity@{TOP_K}"]
    assert before.keys() == popular.keys()


def diversity_of(items: list[int], vectors: NDArray[np.float32]) -> float:
    return float(np.mean([1 - vectors[a].astype(float) @ vectors[b] for a, b in combinations(items, 2)]))


def test_without_content_items_are_compared_by_their_embeddings(diverse: Workspace, tmp_path: Path) -> None:
    """And with other blocks, on which nothing depends."""
    sets = {"diversity.weight": str(WEIGHT), "diversity.candidates": str(POOL), "matrix.block_users": "5"}
    workspace = Workspace(diverse.spark, tmp_path, sets, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    vectors = workspace.arrays("model")["item_vectors"]
    require_expected_lists(workspace, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_a_category_that_no_item_has_as_an_attribute_is_refused(diverse: Workspace) -> None:
    outcome = diverse.cli("run", "--run-date", FIRST_DAY, sets={"diversity.category": "color"})
    assert outcome.code == 2
    assert "diversity.category ['color'] are not among items.attributes, ['genres', 'title']" in outcome.err
