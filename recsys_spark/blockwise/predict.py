"""Predicts given user-item pairs from the embeddings, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.blockwise.scorers import ItemVectors
from recsys_spark.kernels.hidden import HiddenLayer, hidden_scores
from recsys_spark.kernels.scoring import score_pairs

_SCORED = "user_id string, item_id string, score float, status string"
UNKNOWN_USER, UNKNOWN_ITEM, UNTRAINED_USER, UNTRAINED_ITEM, PREDICTED = (
    "unknown_user",
    "unknown_item",
    "untrained_user",
    "untrained_item",
    "predicted",
)


@dataclass(frozen=True)
class RatingScale:
    """The ratings that scores of 0-1 stand for: `low` was scaled to `lowest`, `high` to 1.

    With `is_logistic`, scores stand for what their logistic function is.
    """

    low: float
    high: float
    lowest: float
    is_logistic: bool = False

    def rating(self, score: Column) -> Column:
        """Scores as ratings, within the range; no score, no rating (`greatest` and `least` pass over nulls)."""
        score = F.lit(1.0) / (F.lit(1.0) + F.exp(-score)) if self.is_logistic else score
        share = (F.least(F.greatest(score, F.lit(self.lowest)), F.lit(1.0)) - self.lowest) / (1.0 - self.lowest)
        return F.when(score.isNotNull(), F.lit(self.low) + share * (self.high - self.low))


def predict_pairs(
    pairs: DataFrame,
    users: DataFrame,
    items: DataFrame,
    embeddings: DataFrame,
    vectors: ItemVectors,
    block_users: int,
    hidden: HiddenLayer | None = None,
) -> DataFrame:
    """Scores of `user_id, item_id` pairs, a row each, with a `status`; no score unless it is `predicted`.

    Args:
        pairs: the pairs, duplicates kept.
        users: the user index.
        items: the item index.
        embeddings: the table `user_embeddings`.
        vectors: the items that can be scored.
        block_users: users in a block of `embeddings`.
        hidden: what scores have beside the product of the vectors.
    """
    located = (
        pairs.select("user_id", "item_id")
        .join(users.select("user_id", "user_idx"), on="user_id", how="left")
        .join(items.select("item_id", "item_idx"), on="item_id", how="left")
    )
    is_known = F.col("user_idx").isNotNull() & F.col("item_idx").isNotNull()
    block = F.floor(F.col("user_idx") / F.lit(block_users)).cast("int").alias("block_id")
    known = located.where(is_known).select(block, "user_idx", "user_id", "item_idx", "item_id")

    def score(pairs_of_block: pa.Table, block_row: pa.Table) -> pa.Table:
        return _score(pairs_of_block, block_row, vectors, block_users, hidden)

    scored = known.groupBy("block_id").cogroup(embeddings.groupBy("block_id")).applyInArrow(score, _SCORED)
    status = F.when(F.col("user_idx").isNull(), UNKNOWN_USER).otherwise(UNKNOWN_ITEM)
    unknown = located.where(~is_known).select(
        "user_id", "item_id", F.lit(None).cast("float").alias("score"), status.alias("status")
    )
    return scored.unionByName(unknown)


def with_ratings(scored: DataFrame, scale: RatingScale | None) -> DataFrame:
    """Adds `rating`: the score on the scale of the ratings, null when the model does not predict ratings."""
    rating = F.lit(None).cast("double") if scale is None else scale.rating(F.col("score").cast("double"))
    return scored.select("user_id", "item_id", "score", rating.alias("rating"), "status")


def _score(
    pairs: pa.Table, block: pa.Table, vectors: ItemVectors, block_users: int, hidden: HiddenLayer | None
) -> pa.Table:
    if pairs.num_rows == 0:
        return _scored(pairs, np.zeros(0, np.float32), np.zeros(0, "U1"), np.zeros(0, bool))
    is_trained = np.frombuffer(block.column("is_trained")[0].as_buffer(), np.uint8).astype(bool)
    user_vectors = np.frombuffer(block.column("vectors")[0].as_buffer(), np.float32).reshape(len(is_trained), -1)
    rows = pairs.column("user_idx").to_numpy() % block_users
    places = vectors.places.load()[pairs.column("item_idx").to_numpy()]
    can_score = is_trained[rows] & (places >= 0)
    scores = np.zeros(len(rows), np.float32)
    scores[can_score] = pair_scores(user_vectors[rows[can_score]], vectors, places[can_score], hidden)
    status = np.where(can_score, PREDICTED, np.where(is_trained[rows], UNTRAINED_ITEM, UNTRAINED_USER))
    return _scored(pairs, scores, status, can_score)


def pair_scores(
    users: NDArray[np.float32], vectors: ItemVectors, places: NDArray[Any], hidden: HiddenLayer | None
) -> NDArray[np.float32]:
    """The scores, (p,), of users, (p, dims), with one item each, given by place; the items lie in different shards."""
    products = np.zeros(len(places), np.float32)
    for shard in vectors.shards:
        items = shard.vectors.load()
        is_here = (places >= shard.first) & (places < shard.first + len(items))
        chosen = items[places[is_here] - shard.first]
        products[is_here] = score_pairs(users[is_here], chosen)
        if hidden is not None:
            dims = hidden.of_users.shape[1]
            products[is_here] += hidden_scores(users[is_here, :dims], chosen[:, :dims], hidden)
    return products


def _scored(
    pairs: pa.Table, scores: NDArray[np.float32], status: NDArray[np.str_], can_score: NDArray[np.bool_]
) -> pa.Table:
    return pa.table(
        {
            "user_id": pairs.column("user_id"),
            "item_id": pairs.column("item_id"),
            "score": pa.array(scores, pa.float32(), mask=~can_score),
            "status": pa.array(status.tolist(), pa.string()),
        }
    )
