from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.predict import RatingScale, predict_pairs, with_ratings
from recsys_spark.kernels.hidden import HiddenLayer
from recsys_spark.tables import ITEMS, USER_EMBEDDINGS, USERS

N_USERS, N_ITEMS = 23, 11
SMALL, LARGE = 60, 1 << 30
RANDOM = np.random.default_rng(6)
USER_VECTORS = RANDOM.standard_normal((N_USERS, 4)).astype(np.float32)
ITEM_VECTORS = RANDOM.standard_normal((N_ITEMS, 4)).astype(np.float32)
LAYER = HiddenLayer(*(RANDOM.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (3, 4), 3, 3)))
IS_TRAINED_USER = np.arange(N_USERS) % 5 != 2
IS_TRAINED_ITEM = np.arange(N_ITEMS) % 4 != 1


@pytest.mark.parametrize(
    ("block_users", "shard_bytes", "hidden"), [(4, SMALL, None), (23, LARGE, None), (4, SMALL, LAYER)]
)
def test_pairs_are_scored_whatever_the_blocks_and_shards(
    spark: SparkSession, tmp_path: Path, block_users: int, shard_bytes: int, hidden: HiddenLayer | None
) -> None:
    users = spark.createDataFrame([(user, f"u{user}", {}) for user in range(N_USERS)], USERS.schema)
    items = spark.createDataFrame([(item, f"i{item}", {}) for item in range(N_ITEMS)], ITEMS.schema)
    blocks = [
        (
            number,
            bytearray(USER_VECTORS[start : start + block_users]),
            bytearray(IS_TRAINED_USER[start : start + block_users]),
        )
        for number, start in enumerate(range(0, N_USERS, block_users))
    ]
    embeddings = spark.createDataFrame(blocks, USER_EMBEDDINGS.schema)
    vectors = distribute_items(spark, ITEM_VECTORS, IS_TRAINED_ITEM, tmp_path / "items", shard_bytes)
    known = [(user, item) for user in range(1, N_USERS) for item in range(N_ITEMS)]
    named = [(f"u{user}", f"i{item}") for user, item in known]
    strange = [("nobody", "i0"), ("u0", "nothing"), ("nobody", "nothing"), (None, "i0")]
    pairs = spark.createDataFrame([*named, *named[:2], *strange], "user_id string, item_id string").repartition(3)
    rows = predict_pairs(pairs, users, items, embeddings, vectors, block_users, hidden).collect()
    assert len(rows) == len(known) + 2 + len(strange), "duplicates are kept"
    found = {(row["user_id"], row["item_id"]): (row["status"], row["score"]) for row in rows}
    for user, item in known:
        status, score = found[f"u{user}", f"i{item}"]
        if not IS_TRAINED_USER[user]:
            assert (status, score) == ("untrained_user", None)
        elif not IS_TRAINED_ITEM[item]:
            assert (status, score) == ("untrained_item", None)
        else:
            assert status == "predicted"
            expected = float(USER_VECTORS[user] @ ITEM_VECTORS[item])
            if hidden is not None:
                units = hidden.of_users @ USER_VECTORS[user] + hidden.of_items @ ITEM_VECTORS[item] + hidden.biases
                expected += float(np.maximum(units, 0) @ hidden.output)
            assert score == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert [found[pair] for pair in strange] == [
        ("unknown_user", None), ("unknown_item", None), ("unknown_user", None), ("unknown_user", None),
    ]  # fmt: skip


def test_ratings_are_scores_on_the_scale_of_the_input(spark: SparkSession) -> None:
    scores = [0.2, 0.6, 1.0, -3.0, 7.0, None]
    scored = spark.createDataFrame(
        [("u", str(place), score, "predicted") for place, score in enumerate(scores)],
        "user_id string, item_id string, score float, status string",
    )
    rated = with_ratings(scored, RatingScale(1.0, 5.0, 0.2)).orderBy("item_id").collect()
    assert [row["rating"] for row in rated] == [pytest.approx(value) for value in (1.0, 3.0, 5.0, 1.0, 5.0)] + [None]
    assert {row["rating"] for row in with_ratings(scored, None).collect()} == {None}
    squashed = with_ratings(scored, RatingScale(1.0, 5.0, 0.2, is_logistic=True)).orderBy("item_id").collect()
    shares = [(max(1 / (1 + np.exp(-score)), 0.2) - 0.2) / 0.8 for score in scores if score is not None]
    assert [row["rating"] for row in squashed] == [pytest.approx(1 + 4 * share) for share in shares] + [None]
