"""Nights whose lists come from a blend of all models, compared with the sum of their standardised scores."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.hybrids import blend_facts
from recsys_spark.learning import sample_users
from recsys_spark.report.summary import print_summary
from recsys_spark.storage.runs import open_run
from tests.night.blend_oracle import Oracle, Scores
from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    TOP_K,
    Workspace,
    checkerboard,
    half_of,
    item_id,
    seen_by_user,
    user_id,
    write_csv,
    write_events,
)
from tests.night.conftest import UNSEEN_ITEM, UNSEEN_USER
from tests.night.oracles import brute_force_metrics, metrics_of_run, splits_as_matrices
from tests.night.test_content import title

pytestmark = pytest.mark.slow

COMPONENTS = [
    "embedding",
    "popularity",
    "neighbors",
    "content",
    "ease",
    "graph_filter",
    "vae",
    "session_embedding",
    "session_content",
    "session_ease",
]
BARE = "i98"  # nobody has it and nothing is known of it
SETS = {
    "recommend.model": "hybrid",
    "hybrid.components": str(COMPONENTS).replace("'", '"'),
    "hybrid.segments": "[3, 5]",
    "hybrid.candidates": "10",
    "session.items": "3",
    "session.half_life_items": "1.5",
    "ease.l2": "2",
    "graph_filter.dims": "3",
    "vae.embedding_dim": "4",
    "vae.hidden_units": "8",
    "vae.epochs": "5",
    "vae.max_trained_users": "20",
    "content.text": '["title"]',
    "content.min_items": "1",
    "content.embedding_dim": "6",
    "content.epochs": "5",
    "reasons.enabled": "true",
}


WEIGHTS = [[1.0 + (place * 7 + segment * 4) % 9 for place in range(len(COMPONENTS))] for segment in range(3)]


@pytest.fixture(scope="module", autouse=True)
def every_component_counts() -> Iterator[None]:
    """Weights that are learned here would be those of a few: so small a world is told apart by any model."""

    def facts_with_all(*arguments: Any) -> dict[str, Any]:
        return {**blend_facts(*arguments), "segments": [3, 5], "weights": WEIGHTS, "is_blended": True}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_spark.hybrids.blend_facts", facts_with_all)
        yield


@pytest.fixture(scope="module")
def hybrid(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The checkerboard, a described item that nobody has had, one of which nothing is known, and an unseen user."""
    workspace = Workspace(spark, tmp_path_factory.mktemp("hybrid"), SETS, is_described=True)
    write_inputs(workspace)
    workspace.night(FIRST_DAY)
    return workspace


def write_inputs(workspace: Workspace) -> None:
    write_events(workspace.folder / "events.csv", checkerboard())
    described = [[item_id(item), title(item)] for item in range(N_ITEMS)] + [[UNSEEN_ITEM, title(1)], [BARE, ""]]
    write_csv(workspace.folder / "items.csv", ["code", "label"], described)
    write_csv(workspace.folder / "users.csv", ["name"], [[user_id(0)], [UNSEEN_USER]])


def test_lists_are_those_of_the_weighted_sum(hybrid: Workspace) -> None:
    oracle = Oracle(hybrid, "model")
    blended = oracle.blended()
    for user, had in seen_by_user(checkerboard()).items():
        found, row = hybrid.lists()[user], blended[oracle.users[user]].copy()
        row[[oracle.items[item] for item in had]] = -np.inf
        assert found.tier == "hybrid"
        np.testing.assert_allclose(found.scores, np.sort(row)[::-1][:TOP_K], atol=1e-4)
        np.testing.assert_allclose(found.scores, [row[oracle.items[item]] for item in found.item_ids], atol=1e-4)


def test_users_that_the_autoencoder_was_not_trained_on_are_encoded_too(hybrid: Workspace) -> None:
    facts, oracle = hybrid.facts("train")["details"]["vae"], Oracle(hybrid, "model")
    assert facts["sampled_users"] == 20 < len(oracle.users)
    assert facts["refit_epochs"] == facts["best_epoch"] <= len(facts["losses"]) <= 5
    scores, is_known = oracle.encoded()
    has_known = (oracle.has[:, is_known] > 0).any(axis=1)
    assert has_known.sum() > 20
    np.testing.assert_array_equal(scores[:, is_known].any(axis=1), has_known)


def test_training_of_the_autoencoder_is_stopped_by_lists_as_long_as_those_that_are_made(hybrid: Workspace) -> None:
    facts, oracle = hybrid.facts("train")["details"]["vae"], Oracle(hybrid, "selection")
    sample, (scores, is_known) = sample_users(len(oracle.users), 20, 3), oracle.encoded()
    assert sample is not None
    wanted: dict[int, list[int]] = {}
    for row in hybrid.rows("interactions"):
        if row["split"] == "validation" and sample.places[row["user_idx"]] >= 0:
            wanted.setdefault(row["user_idx"], []).append(row["item_idx"])
    gains, ndcgs = 1 / np.log2(np.arange(TOP_K) + 2), []
    for user, items in wanted.items():
        open_ones = np.where(is_known & (oracle.has[user] == 0), scores[user], -np.inf)
        best = [item for item in np.argsort(-open_ones, kind="stable")[:TOP_K] if np.isfinite(open_ones[item])]
        found = sum(gain for gain, item in zip(gains, best, strict=False) if item in items)
        ndcgs.append(found / gains[: len(items)].sum())
    assert facts["validation_ndcgs"][facts["best_epoch"] - 1] == pytest.approx(np.mean(ndcgs), abs=1e-6)


def test_reasons_are_of_the_component_that_adds_most(hybrid: Workspace) -> None:
    """What all of its terms add is its own score as far as it counts, but for biases and inexact solutions."""
    oracle = Oracle(hybrid, "model")
    weights, raw, (scores, _) = oracle.weights(), oracle.raw(), oracle.scores()
    explained = set()
    for row in hybrid.rows("recommendations"):
        user = oracle.users[row["user_id"]]
        if row["tier"] == "popularity":
            assert row["reasons"] == ["popular"] * TOP_K
            continue
        for place, item in enumerate(row["item_ids"]):
            parts = [weights[user, number] * each[user, oracle.items[item]] for number, each in enumerate(scores)]
            counting = [part for number, part in enumerate(parts) if weights[user, number] > 0]
            model = COMPONENTS.index(row["reason_models"][place])
            assert parts[model] == pytest.approx(max(counting), abs=1e-3)
            explained.add(COMPONENTS[model])
            own, known = raw[model]
            factor = weights[user, model] / own[user, known].std()
            terms = 0.0 if COMPONENTS[model] == "popularity" else factor * own[user, oracle.items[item]]
            if COMPONENTS[model] not in ("embedding", "vae"):
                assert row["residuals"][place] == pytest.approx(row["scores"][place] - terms, abs=1e-3)
            kinds = {"popularity": {"popular"}, "neighbors": {"because_users"}}
            items = {"because_items", "new_item_content", "unexplained"}
            assert row["reasons"][place] in kinds.get(COMPONENTS[model], items)
            assert set(row["because_item_ids"][place]) <= seen_by_user(checkerboard())[row["user_id"]]
    assert explained


def test_candidates_carry_the_scores_of_each_component(hybrid: Workspace) -> None:
    oracle = Oracle(hybrid, "selection")
    scores, is_known = oracle.scores()
    validation = splits_as_matrices(hybrid.rows("interactions"), oracle.shape)["validation"]
    rows = hybrid.rows("blend_candidates")
    assert {row["user_idx"] for row in rows} == set(np.flatnonzero(validation.any(axis=1)).tolist())
    for row in rows:
        user, items = row["user_idx"], row["item_idxs"]
        found = np.array(row["scores"]).reshape(-1, len(COMPONENTS))
        np.testing.assert_allclose(found, np.stack([each[user, items] for each in scores], axis=1), atol=1e-4)
        assert row["validation_idxs"] == np.flatnonzero(validation[user]).tolist()
        assert row["history"] == oracle.has[user].sum()
        wanted = set()
        for each in scores:
            free = np.where(is_known & (oracle.has[user] == 0), each[user], -np.inf)
            wanted |= set(np.flatnonzero(free > np.sort(free)[-10] + 1e-4).tolist())
        assert wanted <= set(items)
        assert len(items) <= 10 * len(COMPONENTS)


def test_metrics_come_from_fits_without_the_hold_out(hybrid: Workspace) -> None:
    oracle = Oracle(hybrid, "selection")
    interactions = splits_as_matrices(hybrid.rows("interactions"), oracle.shape)
    expected = brute_force_metrics(oracle.blended().astype(np.float32), interactions, (1, 3))
    assert metrics_of_run(hybrid, "hybrid") == pytest.approx(expected)


def test_the_manifest_tells_the_weights_and_what_the_blend_gains(hybrid: Workspace) -> None:
    facts = hybrid.manifest()["steps"]["blend"]["details"]
    assert facts["components"] == COMPONENTS
    assert facts["weights"] == WEIGHTS
    assert facts["users"] == len(hybrid.rows("blend_candidates"))
    assert facts["gain"] == pytest.approx(facts["blend_ndcg"] - max(facts["ndcgs"]), abs=1e-5)
    assert facts["ndcg_at"] == TOP_K


def summary_of(workspace: Workspace) -> str:
    printed = io.StringIO()
    storage = open_run(workspace.spark, str(workspace.root), workspace.current() or "")
    print_summary(storage, Console(file=printed, width=1000))
    return printed.getvalue()


def test_the_summary_tells_the_weights_and_why_items_are_there(hybrid: Workspace) -> None:
    lines = summary_of(hybrid).splitlines()
    (blend,) = (line for line in lines if line.startswith("Blend"))
    facts = hybrid.facts("blend")["details"]
    assert f"{facts['gain']:+.4f} (standard error {facts['gain_standard_error']:.4f}) of NDCG@{TOP_K}" in blend
    shares = np.array(WEIGHTS) / np.sum(WEIGHTS, axis=1, keepdims=True)
    for name, of_fewer, _, of_many in zip(COMPONENTS, *shares, strict=True):
        assert f" {name} {of_fewer:.2f}" in blend.partition("3 items or more")[0]
        assert f" {name} {of_many:.2f}" in blend.partition("5 items or more")[2]
    assert sum(" because of " in line or ": new" in line or ": popular" in line for line in lines) >= TOP_K


def test_lists_are_of_the_users_half_and_an_unseen_user_gets_the_popular_ones(hybrid: Workspace) -> None:
    lists, seen = hybrid.lists(), seen_by_user(checkerboard())
    is_own_half = [
        half_of(item) == half_of(user) for user in seen for item in lists[user].item_ids if item != UNSEEN_ITEM
    ]
    assert np.mean(is_own_half) > 0.8
    assert lists[UNSEEN_USER].tier == "popularity"
    assert BARE not in {item for each in lists.values() for item in each.item_ids}


def test_results_do_not_depend_on_blocks(hybrid: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_spark.blockwise.hybrid.SCORES_AT_ONCE", 40)
    other = Workspace(hybrid.spark, tmp_path, {**SETS, "matrix.block_users": "5"}, is_described=True)
    write_inputs(other)
    other.night(FIRST_DAY)
    for table in ("blend_candidates", "recommendations", "metrics"):
        assert other.digest(table) == hybrid.digest(table), table


def test_the_ranking_stage_orders_the_candidates_by_its_network(
    hybrid: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_spark.rankers.ranks_better", lambda gains: True)
    monkeypatch.setattr("recsys_spark.blockwise.ranking.USERS_AT_ONCE", 7)
    workspace = hybrid.copy(tmp_path / "copy")
    workspace.night("2024-03-11", sets={"ranker.enabled": "true", "ranker.epochs": "4", "ranker.learning_rate": "0.05"})
    facts = workspace.facts("blend")["details"]
    assert facts["ranker"]["losses"][-1] < facts["ranker"]["losses"][0]
    assert "Ranking       the stage is used: it has " in summary_of(workspace)
    oracle = Oracle(workspace, "model")
    ranked, lists = ranked_scores(oracle, facts), workspace.lists()
    for user, had in seen_by_user(checkerboard()).items():
        row = ranked[oracle.users[user]].copy()
        row[[oracle.items[item] for item in had]] = -np.inf
        assert lists[user].tier == "ranker"
        np.testing.assert_allclose(lists[user].scores, np.sort(row)[::-1][:TOP_K], rtol=1e-4, atol=1e-3)
    assert lists[UNSEEN_USER].tier == "popularity"


def ranked_scores(oracle: Oracle, facts: dict[str, Any]) -> Scores:
    """By the stored network over all items that any component knows: 10 candidates of each are all there are."""
    network = oracle.workspace.arrays("ranker")
    ages: dict[int, list[float]] = {}
    for row in oracle.rows:
        age = (np.datetime64("2024-03-12") - np.datetime64(row["last_at"].replace(tzinfo=None))) / np.timedelta64(
            1, "D"
        )
        ages.setdefault(row["item_idx"], []).append(age)
    popularity = oracle.arrays["popularity"]
    of_items = np.zeros((oracle.shape[1], 4))
    of_items[:, 0], of_items[:, 3] = popularity, popularity == 0
    for item, known in ages.items():
        of_items[item, 1:3] = np.log1p(max(known)), np.log1p(min(known))
    components, blended = np.stack(oracle.scores()[0], axis=2), oracle.blended()
    history = oracle.has.sum(axis=1)
    ranked = np.full(oracle.shape, -np.inf)
    for user in np.flatnonzero(history):
        for item in np.flatnonzero(np.isfinite(blended[user])):
            total = blended[user, item]
            x = np.concatenate([components[user, item], [total, np.log1p(history[user])], of_items[item]])
            below = np.maximum(
                network["first"] @ ((x - network["means"]) / network["scales"]) + network["first_biases"], 0
            )
            above = np.maximum(network["second"] @ below + network["second_biases"], 0)
            ranked[user, item] = total + network["output"] @ above
    return ranked


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        ({"content.text": "[]"}, "hybrid.components: content needs attributes in content, such as content.text"),
        ({"neighbors.enabled": "false"}, "hybrid.components: neighbors needs neighbors.enabled = true"),
        ({"hybrid.components": "[]"}, "components must be at least one"),
        ({"hybrid.components": '["ease", "ease"]'}, "none of them twice, got ['ease', 'ease']"),
        ({"hybrid.components": '["magic"]'}, "hybrid.components.0: Input should be 'embedding'"),
        ({"hybrid.segments": "[5, 3]"}, "segments must be rising whole numbers from 1, got [5, 3]"),
    ],
)
def test_what_cannot_be_together_is_refused(hybrid: Workspace, sets: dict[str, str], complaint: str) -> None:
    outcome = hybrid.cli("run", "--run-date", FIRST_DAY, sets=sets)
    assert outcome.code == 2
    assert complaint in outcome.err
