"""Nights of the models that are not two embeddings and their product."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.models.features import find_features
from tests.night.catalogue import (
    FIRST_DAY,
    N_USERS,
    SECOND_DAY,
    Workspace,
    checkerboard,
    half_of,
    item_id,
    seen_by_user,
    user_id,
    write_csv,
    write_events,
)

pytestmark = pytest.mark.slow

TWO_TOWER = {
    "model.architecture": "two_tower",
    "model.loss": "softmax",
    "model.temperature": "0.5",
    "model.l2": "0.0",
    "model.epochs": "10",
}
NEUMF = {
    "model.architecture": "neumf",
    "model.loss": "bce",
    "model.l2": "0.01",
    "model.epochs": "10",
    "recommend.model": "neighbors",
    "neighbors.enabled": "true",
}


def test_what_items_are_like_has_a_part_in_a_night_whose_logs_are_kept(spark: SparkSession, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    sets = {**TWO_TOWER, "model.item_features": '["title"]', "model.tensorboard": str(logs), "model.epochs": "4"}
    workspace = Workspace(spark, tmp_path, sets, is_described=True)
    write_events(workspace.folder / "events.csv", checkerboard())
    items = {item for _, item, *_ in checkerboard()}
    write_csv(
        workspace.folder / "items.csv", ["code", "label"], [[item, f"{half_of(item)} | all"] for item in sorted(items)]
    )
    write_csv(workspace.folder / "users.csv", ["name"], [[user_id(user)] for user in range(N_USERS)])
    run_id = workspace.night(FIRST_DAY)
    known = find_features(({"title": f"{half_of(item)} | all"} for item in sorted(items)), ("title",))
    assert known.size == 3
    lists = workspace.lists()
    for user in seen_by_user(checkerboard()):
        assert np.mean([half_of(item) == half_of(user) for item in lists[user].item_ids]) > 0.9, user
    assert [path.name for path in logs.iterdir()] == [f"{FIRST_DAY}-{run_id}"]
    assert sorted(path.name for path in (logs / f"{FIRST_DAY}-{run_id}").iterdir()) == ["model", "selection"]


@pytest.mark.parametrize("sampled", [None, 18])
def test_users_pooled_from_their_items_get_lists_of_their_taste(
    spark: SparkSession, tmp_path: Path, sampled: int | None
) -> None:
    more = {} if sampled is None else {"model.max_trained_users": str(sampled)}
    workspace = Workspace(spark, tmp_path, TWO_TOWER | more)
    write_events(workspace.folder / "events.csv", checkerboard())
    days = (FIRST_DAY,) if sampled else (FIRST_DAY, SECOND_DAY)
    for day in days:
        workspace.night(day)
        lists = workspace.lists()
        for user in seen_by_user(checkerboard()):
            assert lists[user].tier == "embedding"
            assert np.mean([half_of(item) == half_of(user) for item in lists[user].item_ids]) > 0.9, user
        assert len(lists) == N_USERS
    assert workspace.facts("train")["details"]["warm_start"] == (len(days) > 1)
    assert workspace.facts("train")["details"]["sampled_users"] == sampled


def test_a_hidden_layer_predicts_pairs_beside_lists_of_neighbors(spark: SparkSession, tmp_path: Path) -> None:
    workspace = Workspace(spark, tmp_path, NEUMF)
    write_events(workspace.folder / "events.csv", checkerboard())
    workspace.night(FIRST_DAY)
    assert {each.tier for each in workspace.lists().values()} <= {"neighbors", "popularity"}
    pairs = [(user_id(user), item_id(item)) for user in range(4) for item in range(16)]
    write_csv(tmp_path / "pairs.csv", ["user_id", "item_id"], pairs)
    outcome = workspace.cli("predict", "--pairs", str(tmp_path / "pairs.csv"))
    assert outcome.code == 0, outcome.err
    rows = {(row["user_id"], row["item_id"]): float(row["score"]) for row in csv.DictReader(io.StringIO(outcome.out))}
    arrays = workspace.arrays("model")
    users, items = workspace.positions("user"), workspace.positions("item")
    for user, item in pairs:
        of_user, of_item = arrays["user_vectors"][users[user]], arrays["item_vectors"][items[item]]
        units = arrays["hidden_of_users"] @ of_user + arrays["hidden_of_items"] @ of_item + arrays["hidden_biases"]
        biases = arrays["user_biases"][users[user]] + arrays["item_biases"][items[item]]
        expected = of_user @ of_item + biases + np.maximum(units, 0) @ arrays["hidden_output"]
        assert rows[user, item] == pytest.approx(float(expected), abs=1e-4)
    assert np.abs(arrays["hidden_output"]).max() > 0.01, "the layer counts"
