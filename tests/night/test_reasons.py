"""Nights whose lists have reasons: terms of the scores, by the definitions, from what the runs have stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.report.lists import read_lists
from recsys_spark.storage.runs import open_run
from recsys_spark.tables import RECOMMENDATIONS
from tests.night.catalogue import FIRST_DAY, N_USERS, TOP_K, Workspace, half_of
from tests.night.test_content import NEW, STRANGER, title, write_inputs
from tests.night.test_content import SETS as CONTENT

pytestmark = pytest.mark.slow

SETS = {**CONTENT, "reasons.enabled": "true"}
Terms = NDArray[np.float64]


@pytest.fixture(scope="module")
def explained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The checkerboard by content, a described item that nobody has had, and a user of whose item nothing is known."""
    workspace = Workspace(spark, tmp_path_factory.mktemp("explained"), SETS, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    return workspace


def matrix_of(workspace: Workspace, column: str) -> Terms:
    users, items = workspace.positions("user"), workspace.positions("item")
    matrix = np.zeros((len(users), len(items)))
    for row in workspace.rows("interactions"):
        if column == "taste":
            age = (np.datetime64("2024-03-11") - np.datetime64(row["last_at"].replace(tzinfo=None))) / np.timedelta64(
                1, "D"
            )
            matrix[row["user_idx"], row["item_idx"]] = row["rating"] * 2 ** (-age / 5)
        else:
            matrix[row["user_idx"], row["item_idx"]] = 1
    return matrix


def content_terms(workspace: Workspace) -> Terms:
    """What each item adds to each score, (users, own items, items)."""
    weights, vectors = matrix_of(workspace, "taste"), workspace.arrays("content")["content_embeddings"].astype(float)
    lengths = np.maximum(np.linalg.norm(weights @ vectors, axis=1), 1e-12)
    return weights[:, :, None] * (vectors @ vectors.T)[None] / lengths[:, None, None]


def embedding_terms(workspace: Workspace) -> Terms:
    """The same of least squares: by how far an item was not expected, and how alike two are among all."""
    has, model = matrix_of(workspace, "has"), workspace.arrays("model")
    is_trained, vectors = model["is_trained_item"], model["item_vectors"].astype(float)
    facts = workspace.facts("train")["details"]
    gram = vectors[is_trained].T @ vectors[is_trained]
    users = users_of(workspace, vectors.shape[1])
    terms = np.zeros((*has.shape, has.shape[1]))
    for user in range(len(has)):
        own = (has[user] > 0) & is_trained
        penalty = 0.1 * (own.sum() + facts["unobserved_weight"] * is_trained.sum())
        metric = np.linalg.inv(facts["unobserved_weight"] * gram + penalty * np.eye(len(gram)))
        terms[user, own] = (1 - vectors[own] @ users[user])[:, None] * (vectors[own] @ metric @ vectors.T)
    return terms


def users_of(workspace: Workspace, dims: int) -> Terms:
    blocks = sorted(workspace.rows("user_embeddings"), key=lambda row: row["block_id"])
    whole = np.concatenate([np.frombuffer(block["vectors"], np.float32).reshape(-1, dims + 3) for block in blocks])
    return whole[:, :dims].astype(float)


def require_reasons(workspace: Workspace, terms: Terms, model: str, new: set[str], most: int = 2) -> list[float]:
    """Every item has its largest terms and what is left; gives the shares of the scores that are left."""
    users, items = workspace.positions("user"), workspace.positions("item")
    left: list[float] = []
    for row in workspace.rows("recommendations"):
        if row["tier"] == "popularity":
            continue
        assert (row["tier"], row["reason_models"], row["neighbor_counts"]) == (model, None, None)
        for place, item in enumerate(row["item_ids"]):
            own = terms[users[row["user_id"]], :, items[item]]
            named, values = row["because_item_ids"][place], row["contributions"][place]
            best = np.maximum(-np.sort(-own)[:most], 0.0)
            np.testing.assert_allclose([*values, *[0.0] * (most - len(values))], best, atol=1e-5)
            assert min(values, default=1.0) > 0
            np.testing.assert_allclose([own[items[name]] for name in named], values, atol=1e-5)
            assert row["residuals"][place] == pytest.approx(row["scores"][place] - own.sum(), abs=1e-4)
            expected = "new_item_content" if item in new else "because_items" if named else "unexplained"
            assert row["reasons"][place] == expected
            left.append(abs(row["residuals"][place] / row["scores"][place]))
    return left


def test_terms_of_content_are_all_of_the_score(explained: Workspace) -> None:
    left = require_reasons(explained, content_terms(explained), "content", {NEW})
    assert len(left) == N_USERS * TOP_K
    assert max(left) < 1e-4
    rows = [row for row in explained.rows("recommendations") if row["tier"] == "content"]
    assert NEW in {item for row in rows for item in row["item_ids"]}
    halves = [
        half_of(name) == half_of(row["user_id"]) for row in rows for own in row["because_item_ids"] for name in own
    ]
    assert all(halves), "a user's own items are of his half"
    assert all(row["because_user_ids"] is None for row in rows)


def test_lists_of_popular_items_say_so(explained: Workspace) -> None:
    (row,) = [row for row in explained.rows("recommendations") if row["user_id"] == STRANGER.user]
    assert row["reasons"] == ["popular"] * TOP_K
    assert row["because_item_ids"] == row["contributions"] == [[]] * TOP_K
    assert row["residuals"] == row["scores"]


def test_show_says_why(explained: Workspace) -> None:
    storage = open_run(explained.spark, str(explained.root), explained.current() or "")
    rows = storage.read(RECOMMENDATIONS).where("user_id in ('u07', 'u08')").orderBy("user_id")
    found = read_lists(storage, rows, most=2)
    assert [each.user_id for each in found] == ["u07", "u08"]
    stored = {row["user_id"]: row for row in explained.rows("recommendations")}
    for user, items in ((each.user_id, each.items) for each in found):
        assert [item.item_id for item in items] == stored[user]["item_ids"][:2]
        for item, named in zip(items, stored[user]["because_item_ids"], strict=False):
            titles = ", ".join(title(int(own[1:])) for own in named)
            assert item.why == (f"new, like {titles}" if item.item_id == NEW else f"because of {titles}")
    outcome = explained.cli("show", "--user", "u07")
    assert outcome.code == 0, outcome.err
    header, *_ = (line.split() for line in outcome.out.splitlines() if "rank" in line)
    assert header[-2] == "why"
    assert "because" in outcome.out


def test_terms_of_the_embedding_are_those_of_least_squares(explained: Workspace, tmp_path: Path) -> None:
    workspace = explained.copy(tmp_path / "copy")
    workspace.night("2024-03-11", sets={"recommend.model": "embedding", "recommend.top_k": "12"})
    require_reasons(workspace, embedding_terms(workspace), "embedding", {NEW})


def test_results_do_not_depend_on_blocks(explained: Workspace, tmp_path: Path) -> None:
    other = Workspace(explained.spark, tmp_path, {**SETS, "matrix.block_users": "5"}, is_described=True)
    write_inputs(other)
    other.night(FIRST_DAY)
    assert other.digest("recommendations") == explained.digest("recommendations")


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ({"reasons.items": "11"}, "reasons.items: Input should be less than or equal to 10"),
        ({"reasons.show_users": "true"}, "reasons.show_users = true needs recommend.model = 'neighbors'"),
        (
            {"reasons.show_users": "true", "reasons.enabled": "false"},
            "reasons.show_users = true needs reasons.enabled = true",
        ),
    ],
)
def test_what_cannot_be_is_refused(explained: Workspace, sets: dict[str, Any], complaint: str) -> None:
    outcome = explained.cli("run", "--run-date", FIRST_DAY, sets=sets)
    assert outcome.code == 2
    assert complaint in outcome.err
