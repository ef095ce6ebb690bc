"""Lists by popularity and by neighbors, with other blocks and shards; lists by embeddings are in `test_lists`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.blockwise.files import MappedStrings, distribute_strings, write_strings
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.neighbors import pack_neighbors
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.blockwise.scorers import NeighborScorer, PopularityScorer
from recsys_spark.blockwise.user_rows import RowSource, distribute_item_ranges
from recsys_spark.tables import RECOMMENDATIONS, USER_NEIGHBORS
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste
from tests.kernels.cases import best_of

POPULARITY = np.array([0, 3, 3, 1, 0, 2, 5, 1, 1, 0, 2, 7, 3, 3, 0, 1, 2], np.float32)
CUTS = pytest.mark.parametrize(
    ("block_users", "shard_bytes"), [(4, 16), (23, 1 << 30)], ids=["small blocks and shards", "one block and shard"]
)
Lists = dict[str, tuple[list[str], list[float], str]]


@pytest.fixture(scope="module")
def item_ids(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> MappedStrings:
    path = tmp_path_factory.mktemp("ids") / "items.arrow"
    return distribute_strings(spark, write_strings(path, iter([pa.array([f"i{item}" for item in range(N_ITEMS)])])))


def popular(spark: SparkSession, scratch: Path, shard_bytes: int) -> PopularityScorer:
    items = distribute_items(spark, POPULARITY[:, None], POPULARITY > 0, scratch / "popular", shard_bytes)
    assert len(items.shards) == (4 if shard_bytes == 16 else 1)
    return PopularityScorer(items)


def published(frame: DataFrame) -> Lists:
    assert frame.columns == RECOMMENDATIONS.schema.names
    rows = frame.collect()
    assert len(rows) == N_USERS
    return {row["user_id"]: (row["item_ids"], row["scores"], row["tier"]) for row in rows}


def expected(scores: NDArray[np.float32], tiers: NDArray[Any], k: int) -> Lists:
    """The k largest of each row, ties by the smaller position; -inf is never taken."""
    indices, values = best_of(scores, k)
    return {
        f"u{user}": (
            [f"i{item}" for item in indices[user] if item >= 0],
            values[user][indices[user] >= 0].tolist(),
            tiers[user],
        )
        for user in range(N_USERS)
    }


def popularity_of(is_seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(is_seen | (POPULARITY == 0), np.float32(-np.inf), POPULARITY)


@CUTS
@pytest.mark.parametrize("k", [4, 40])
def test_popularity_lists(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    item_ids: MappedStrings,
    tmp_path: Path,
    block_users: int,
    shard_bytes: int,
    k: int,
) -> None:
    frame = recommend(MovedBlocks((blocks(block_users),)), popular(spark, tmp_path, shard_bytes), item_ids, k).frame()
    tiers = np.full(N_USERS, "popularity")
    assert published(frame) == expected(popularity_of(~np.isnan(taste.ratings)), tiers, k)


@CUTS
@pytest.mark.parametrize(("mode", "shrinkage"), [("mean", 0.5), ("sum", 0.0)])
def test_neighbor_lists(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    source: Callable[..., RowSource],
    item_ids: MappedStrings,
    tmp_path: Path,
    block_users: int,
    shard_bytes: int,
    mode: Literal["mean", "sum"],
    shrinkage: float,
) -> None:
    """Some users have no neighbor, one has a neighbor without anything, one has nothing: they get what is popular."""
    random = np.random.default_rng(3)
    listed = [random.permutation(N_USERS)[: random.integers(0, 5)].tolist() for _ in range(N_USERS)]
    listed[5], listed[6] = [0, 1, 2], [5]
    assert np.isnan(taste.ratings[5]).all()
    weights = (random.integers(1, 9, (N_USERS, N_USERS)) / 8).astype(np.float32)
    rows = [
        (user, neighbor, 1.0, float(weights[user, neighbor]), rank)
        for user, neighbors in enumerate(listed)
        for rank, neighbor in enumerate(neighbors, start=1)
    ]
    ranges = distribute_item_ranges(spark, source(block_users), tmp_path / "rows", shard_bytes)
    assert (len(ranges) > 1) == (shard_bytes < 1 << 20)
    assert sum(part.n_items for part in ranges) == N_ITEMS
    scorer = NeighborScorer(ranges, False, popular(spark, tmp_path, shard_bytes), mode, shrinkage)
    packed = pack_neighbors(blocks(block_users), spark.createDataFrame(rows, USER_NEIGHBORS.schema))
    attached = MovedBlocks((blocks(block_users), packed))
    scores, tiers = _votes(taste, listed, weights, mode, shrinkage)
    assert set(tiers) == {"neighbors", "popularity"}
    assert published(recommend(attached, scorer, item_ids, 4).frame()) == expected(scores, tiers, 4)


def _votes(
    taste: Taste, listed: list[list[int]], weights: NDArray[np.float32], mode: str, shrinkage: float
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Scores by float64 sums in the order of the neighbors, and where each list comes from."""
    is_seen = ~np.isnan(taste.ratings)
    ratings = np.nan_to_num(taste.ratings).astype(np.float64)
    scores, tiers = popularity_of(is_seen), np.full(N_USERS, "popularity", object)
    for user, others in enumerate(listed):
        sums, totals = np.zeros(N_ITEMS), np.zeros(N_ITEMS)
        for other in others:
            sums += float(weights[user, other]) * ratings[other]
            totals += float(weights[user, other]) * is_seen[other]
        is_open = (totals > 0) & ~is_seen[user]
        if is_open.any() and is_seen[user].any():
            votes = sums / np.where(is_open, totals + shrinkage, 1.0) if mode == "mean" else sums
            scores[user] = np.where(is_open, votes, -np.inf)
            tiers[user] = "neighbors"
    return scores, tiers


def test_a_catalogue_without_candidates_gives_empty_lists(
    spark: SparkSession, blocks: Blocks, item_ids: MappedStrings, tmp_path: Path
) -> None:
    items = distribute_items(spark, POPULARITY[:, None], np.zeros(N_ITEMS, bool), tmp_path / "none", 1 << 30)
    lists = published(recommend(MovedBlocks((blocks(10),)), PopularityScorer(items), item_ids, 3).frame())
    assert {len(ids) for ids, _, _ in lists.values()} == {0}
