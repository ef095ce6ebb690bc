"""Lists that are re-ranked, with other blocks, beside those by score alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.diversity import DiverseScorer, Diversity, ItemCategories
from recsys_spark.blockwise.files import distribute_array, distribute_strings, save_arrays, write_strings
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.lists import measure_lists, recommend, reranked
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.blockwise.scorers import PopularityScorer
from recsys_spark.metrics.measure import measure
from recsys_spark.metrics.spread import TrainingCounts
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste
from tests.kernels.cases import best_of, lists_of, picked_greedily

POPULARITY = np.array([0, 3, 3, 1, 0, 2, 5, 1, 1, 0, 2, 7, 3, 3, 0, 1, 2], np.float32)
CATEGORIES = [{item % 3, 3} if item % 4 == 0 else {item % 3} for item in range(N_ITEMS)]
WEIGHT, POOL, MOST = 0.4, 6, 1


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Of length 1; nothing is known of items 6 and 12."""
    random = np.random.default_rng(4)
    drawn = random.choice([-0.5, 0.5], (N_ITEMS, 4)).astype(np.float32)
    drawn[[6, 12]] = 0
    return drawn


def diversity_of(spark: SparkSession, vectors: NDArray[np.float32], scratch: Path) -> Diversity:
    lists = lists_of([sorted(each) for each in CATEGORIES])
    paths = save_arrays(scratch / "diversity", {"vectors": vectors, "indptr": lists.indptr, "indices": lists.indices})
    files = {name: distribute_array(spark, path) for name, path in paths.items()}
    return Diversity(POOL, WEIGHT, files["vectors"], ItemCategories(files["indptr"], files["indices"]), MOST)


def popular(spark: SparkSession, scratch: Path) -> PopularityScorer:
    return PopularityScorer(distribute_items(spark, POPULARITY[:, None], POPULARITY > 0, scratch / "popular", 16))


def expected(is_seen: NDArray[np.bool_], vectors: NDArray[np.float32], k: int) -> list[list[int]]:
    """Picks from the most popular items; a list longer than the pool goes on by popularity."""
    indices, scores = best_of(np.where(is_seen | (POPULARITY == 0), np.float32(-np.inf), POPULARITY), N_ITEMS)
    lists = []
    for row, values in zip(indices, scores, strict=True):
        items = [int(item) for item in row if item >= 0]
        pool = items[:POOL]
        picked = picked_greedily(pool, values[: len(pool)].tolist(), min(k, POOL), WEIGHT, vectors, CATEGORIES, MOST)
        lists.append((picked + items[POOL:])[:k])
    return lists


@pytest.mark.parametrize("block_users", [4, 23])
@pytest.mark.parametrize("k", [3, 9])
def test_lists_are_picked_from_the_pool_and_keep_their_scores(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    vectors: NDArray[np.float32],
    tmp_path: Path,
    block_users: int,
    k: int,
) -> None:
    ids = write_strings(tmp_path / "items.arrow", iter([pa.array([f"i{item}" for item in range(N_ITEMS)])]))
    scorer = DiverseScorer(popular(spark, tmp_path), diversity_of(spark, vectors, tmp_path))
    lists = recommend(MovedBlocks((blocks(block_users),)), scorer, distribute_strings(spark, ids), k)
    wanted = expected(~np.isnan(taste.ratings), vectors, k)
    rows = {row["user_id"]: row for row in lists.frame().collect()}
    assert len(rows) == N_USERS
    for user, items in enumerate(wanted):
        row = rows[f"u{user}"]
        assert row["item_ids"] == [f"i{item}" for item in items]
        assert row["scores"] == [POPULARITY[item] for item in items]
        assert row["tier"] == "popularity"
    assert any(list(row["scores"]) != sorted(row["scores"], reverse=True) for row in rows.values())


def test_measured_lists_have_both_orders(
    spark: SparkSession, taste: Taste, blocks: Blocks, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    diversity, scorer, source = (
        diversity_of(spark, vectors, tmp_path),
        popular(spark, tmp_path),
        MovedBlocks((blocks(10),)),
    )
    both = measure_lists(source, scorer, 3, diversity).cache()
    known = ~np.isnan(taste.ratings) & (taste.splits < 2)
    wanted = expected(known, vectors, 3)
    by_score = {row["user_idx"]: row["item_idxs"] for row in measure_lists(source, scorer, 3).collect()}
    assert {row["user_idx"]: row["item_idxs"] for row in both.collect()} == by_score
    assert {row["user_idx"]: row["item_idxs"] for row in reranked(both).collect()} == {u: wanted[u] for u in by_score}
    metrics = measure(
        reranked(both), "popularity", (1, 3), TrainingCounts(np.ones(N_ITEMS, np.int64), N_USERS), diversity.vectors
    ).rows
    cosines = vectors.astype(float) @ vectors.T
    means = []
    for user in by_score:
        found = [item for item in wanted[user] if vectors[item].any()]
        pairs = [1 - cosines[a, b] for a in found for b in found if a < b]
        means += [np.mean(pairs)] if pairs else []
    (row,) = [row for row in metrics if row["metric"] == "intra_list_diversity"]
    assert (row["k"], row["users"]) == (3, len(means)), "a list of one item has no pair"
    assert row["value"] == pytest.approx(np.mean(means))
