from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.held_out import PairPredictor, predict_held_out
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.metrics.measure import add_up_pairs
from recsys_spark.metrics.pairs import draw_items
from recsys_spark.tables import USER_EMBEDDINGS
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste

RANDOM = np.random.default_rng(6)
USER_VECTORS = RANDOM.standard_normal((N_USERS, 4)).astype(np.float32)
ITEM_VECTORS = RANDOM.standard_normal((N_ITEMS, 4)).astype(np.float32)
IS_TRAINED_USER = np.arange(N_USERS) % 5 != 2
IS_TRAINED_ITEM = np.arange(N_ITEMS) % 4 != 1
SCORES = USER_VECTORS @ ITEM_VECTORS.T
COLUMNS = ("squared_error", "absolute_error", "gauc")


def embeddings(spark: SparkSession, block_users: int) -> Any:
    rows = [
        (
            number,
            bytearray(USER_VECTORS[start : start + block_users]),
            bytearray(IS_TRAINED_USER[start : start + block_users]),
        )
        for number, start in enumerate(range(0, N_USERS, block_users))
    ]
    return spark.createDataFrame(rows, USER_EMBEDDINGS.schema)


@pytest.mark.parametrize(
    ("block_users", "shard_bytes", "is_logistic"), [(4, 60, False), (23, 1 << 30, False), (10, 60, True)]
)
def test_held_out_pairs_are_predicted_and_compared_with_items_not_had(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    tmp_path: Path,
    block_users: int,
    shard_bytes: int,
    is_logistic: bool,
) -> None:
    items = distribute_items(spark, ITEM_VECTORS, IS_TRAINED_ITEM, tmp_path / "items", shard_bytes)
    predictor = PairPredictor(items, None, 0.2, is_logistic, samples=9, seed=3)
    source = MovedBlocks((blocks(block_users), embeddings(spark, block_users)))
    frame = predict_held_out(source, predictor).frame()
    found = {row["user_idx"]: row for row in frame.collect()}
    candidates = items.positions.load()
    drawn = candidates[draw_items(np.arange(N_USERS, dtype=np.int32), 9, len(candidates), 3)]
    expected = {}
    for user in np.flatnonzero(IS_TRAINED_USER):
        had = ~np.isnan(taste.ratings[user])
        held_out = [item for item in np.flatnonzero(had & (taste.splits[user] == 2)) if IS_TRAINED_ITEM[item]]
        if not held_out:
            continue
        raw = SCORES[user, held_out].astype(float)
        errors = np.clip(1 / (1 + np.exp(-raw)) if is_logistic else raw, 0.2, 1) - taste.ratings[user, held_out]
        others = [float(SCORES[user, item]) for item in drawn[user] if not had[item]]
        wins = [np.mean([(one > other) + 0.5 * (one == other) for other in others]) for one in raw]
        expected[user] = (len(held_out), np.square(errors).sum(), np.abs(errors).sum(), sum(wins))
    assert found.keys() == expected.keys()
    assert len(expected) >= 8
    for user, values in expected.items():
        assert tuple(found[user][name] for name in ("pairs", *COLUMNS)) == pytest.approx(values, rel=1e-5), user
    sums = add_up_pairs(frame, COLUMNS)
    pairs = sum(values[0] for values in expected.values())
    for place, name in enumerate(COLUMNS, start=1):
        assert int(sums[name, 0].users.sum()) == pairs
        total = sum(values[place] for values in expected.values())
        assert sums[name, 0].mean == pytest.approx(total / pairs, rel=1e-5), name


def test_what_is_not_asked_for_is_not_measured(spark: SparkSession, blocks: Blocks, tmp_path: Path) -> None:
    items = distribute_items(spark, ITEM_VECTORS, IS_TRAINED_ITEM, tmp_path / "items", 1 << 30)
    source = MovedBlocks((blocks(23), embeddings(spark, 23)))
    without_ratings = PairPredictor(items, None, None, False, samples=3, seed=0)
    assert set(add_up_pairs(predict_held_out(source, without_ratings).frame(), COLUMNS)) == {("gauc", 0)}
    without_samples = PairPredictor(items, None, 0.0, False, samples=0, seed=0)
    assert ("gauc", 0) not in add_up_pairs(predict_held_out(source, without_samples).frame(), COLUMNS)


def test_a_user_who_has_had_all_drawn_items_has_no_area(spark: SparkSession, blocks: Blocks, tmp_path: Path) -> None:
    one_item = np.arange(N_ITEMS) == 3
    items = distribute_items(spark, ITEM_VECTORS, one_item, tmp_path / "items", 1 << 30)
    source = MovedBlocks((blocks(23), embeddings(spark, 23)))
    rows = predict_held_out(source, PairPredictor(items, None, None, False, samples=5, seed=0)).frame().collect()
    assert rows, "some user has the item held out"
    assert {row["gauc"] for row in rows} == {None}
