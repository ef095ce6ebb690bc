"""Nights whose lists come from what items are like."""

from __future__ import annotations

from pathlib import Path

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
    write_csv,
    write_events,
)
from tests.night.oracles import SPLITS, brute_force_metrics, metrics_of_run, splits_as_matrices

pytestmark = pytest.mark.slow

NEW, BARE = "i90", "i91"
WORDS = (("river", "boat", "water", "fish"), ("engine", "road", "wheel", "fuel"))
STRANGER = Event("u97", BARE, "5", "2024-03-05 10:00:00")
SETS = {
    "recommend.model": "content",
    "content.text": '["title"]',
    "content.min_items": "1",
    "content.embedding_dim": "8",
    "content.epochs": "50",  # of one step each: there are few items
    "content.learning_rate": "0.05",
    "content.half_life_days": "5",
}


def title(number: int) -> str:
    """Two words of the item's half, and a few that all have."""
    words = WORDS[number % 2]
    return f"A {words[number // 2 % 4]} and the {words[(number // 2 + 1) % 4]}"


@pytest.fixture(scope="module")
def content(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The checkerboard, a described item that nobody has had, and one of which nothing is known, whose user is new."""
    workspace = Workspace(spark, tmp_path_factory.mktemp("content"), SETS, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    return workspace


def write_inputs(workspace: Workspace) -> None:
    write_events(workspace.folder / "events.csv", [*checkerboard(), STRANGER])
    described = [[item_id(item), title(item)] for item in range(N_ITEMS)] + [[NEW, title(0)], [BARE, ""]]
    write_csv(workspace.folder / "items.csv", ["code", "label"], described)
    write_csv(workspace.folder / "users.csv", ["name"], [[user_id(user)] for user in range(N_USERS)])


def expected_scores(
    workspace: Workspace, splits: tuple[str, ...]
) -> tuple[dict[str, int], dict[str, int], NDArray[np.float64]]:
    """Positions of users and items, and the cosines of what the users had in these splits, by rating and age."""
    users, items = workspace.positions("user"), workspace.positions("item")
    vectors = workspace.arrays("content")["content_embeddings"].astype(np.float64)
    tastes = np.zeros((len(users), vectors.shape[1]))
    for row in workspace.rows("interactions"):
        if row["split"] in splits:
            at = np.datetime64(row["last_at"].replace(tzinfo=None))
            age = (np.datetime64("2024-03-11") - at) / np.timedelta64(1, "D")
            tastes[row["user_idx"]] += row["rating"] * 2 ** (-age / 5) * vectors[row["item_idx"]]
    return users, items, tastes @ vectors.T / np.maximum(np.linalg.norm(tastes, axis=1, keepdims=True), 1e-30)


def test_lists_are_the_nearest_items_to_what_a_user_has_had(content: Workspace) -> None:
    users, items, scores = expected_scores(content, SPLITS)
    seen = seen_by_user(checkerboard())
    for user, had in seen.items():
        found = content.lists()[user]
        row = scores[users[user]].copy()
        row[[items[item] for item in (*had, BARE)]] = -np.inf
        assert found.tier == "content"
        np.testing.assert_allclose(found.scores, np.sort(row)[::-1][:TOP_K], atol=1e-5)
        np.testing.assert_allclose(found.scores, [row[items[item]] for item in found.item_ids], atol=1e-5)


def test_an_item_nobody_has_had_is_recommended_to_whom_it_suits(content: Workspace) -> None:
    lists = content.lists()
    given = [user for user in seen_by_user(checkerboard()) if NEW in lists[user].item_ids]
    assert len(given) > N_USERS / 4
    assert {half_of(user) for user in given} == {0}
    halves = [half_of(item) == half_of(user) for user in seen_by_user(checkerboard()) for item in lists[user].item_ids]
    assert np.mean(halves) > 0.95


def test_a_user_of_whose_items_nothing_is_known_gets_the_popular_ones(content: Workspace) -> None:
    found = content.lists()[STRANGER.user]
    assert found.tier == "popularity"
    assert len(found.item_ids) == TOP_K
    assert not {NEW, BARE} & set(found.item_ids)
    assert BARE not in {item for each in content.lists().values() for item in each.item_ids}


def test_metrics_come_from_tastes_without_the_hold_out(content: Workspace) -> None:
    users, items, scores = expected_scores(content, ("train",))
    scores[:, items[BARE]] = -np.inf
    interactions = splits_as_matrices(content.rows("interactions"), (len(users), len(items)))
    expected = brute_force_metrics(scores.astype(np.float32), interactions, (1, 3))
    assert metrics_of_run(content, "content") == pytest.approx(expected)


def test_what_the_run_keeps_of_the_content(content: Workspace) -> None:
    facts = content.facts("embed_content")["details"]
    assert facts["described_items"] == N_ITEMS + 1
    assert facts["terms"] == len({"a", "and", "the"} | {word for words in WORDS for word in words})
    assert facts["losses"][-1] < facts["losses"][0]


def test_the_embedding_model_recommends_an_item_nobody_has_had(content: Workspace, tmp_path: Path) -> None:
    workspace = content.copy(tmp_path / "copy")
    workspace.night("2024-03-11", sets={"recommend.model": "embedding", "recommend.top_k": "12"})
    lists, seen = workspace.lists(), seen_by_user(checkerboard())
    mapped = [
        item
        for item, place in workspace.positions("item").items()
        if workspace.arrays("model")["is_mapped_item"][place]
    ]
    assert mapped == [NEW]
    assert workspace.facts("train")["details"]["mapped_items"] == 1
    # Lists hold all that a user has not had, so everybody has it somewhere.
    scores = {user: dict(zip(lists[user].item_ids, lists[user].scores, strict=True))[NEW] for user in seen}
    own, other = (np.mean([score for user, score in scores.items() if half_of(user) == half]) for half in (0, 1))
    assert own > 2 * other
    assert {lists[user].tier for user in seen} == {"embedding"}
    assert NEW in {row["item_id"] for row in workspace.rows("similar_items")}


def test_results_do_not_depend_on_blocks(content: Workspace, tmp_path: Path) -> None:
    other = Workspace(content.spark, tmp_path, {**SETS, "matrix.block_users": "5"}, is_described=True)
    write_inputs(other)
    other.night(FIRST_DAY)
    for table in ("recommendations", "item_content", "metrics"):
        assert other.digest(table) == content.digest(table), table


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ({"content.text": "[]"}, "recommend.model = 'content' needs attributes in content, such as content.text"),
        ({"content.numbers": '["weight"]'}, "content.numbers ['weight'] are not among items.attributes, ['title']"),
        ({"content.text_encoder": "encode"}, "content.text_encoder: String should match pattern"),
        ({"content.text": "[]", "content.text_encoder": "a:b"}, "text_encoder needs text"),
    ],
)
def test_what_cannot_be_together_is_refused(content: Workspace, sets: dict[str, str], complaint: str) -> None:
    outcome = content.cli("run", "--run-date", FIRST_DAY, sets=sets)
    assert outcome.code == 2
    assert complaint in outcome.err


def test_vectors_of_different_lengths_stop_the_night(content: Workspace, tmp_path: Path) -> None:
    workspace = content.copy(tmp_path / "copy")
    sets = {"content.text": "[]", "content.vectors": '["title"]'}
    for bad, complaint in (
        ("1 2 3", "has 3 numbers, that of others 2"),
        ("1 x", "holds something that is not a number"),
    ):
        described = [[item_id(item), "0.5 1" if item else bad] for item in range(N_ITEMS)]
        described.sort(key=lambda row: row[1] == bad)
        write_csv(workspace.folder / "items.csv", ["code", "label"], described)
        outcome = workspace.cli("run", "--run-date", FIRST_DAY, sets=sets)
        assert outcome.code == 1
        assert "step embed_content failed: content.vectors: title of item" in outcome.err
        assert complaint in outcome.err
