from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.blockwise.files import MappedStrings, distribute_strings, write_strings
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.lists import measure_lists, recommend
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.blockwise.predict import RatingScale, predict_pairs, with_ratings
from recsys_spark.blockwise.scorers import EmbeddingScorer, PopularityScorer
from recsys_spark.blockwise.similar import distribute_entities, find_similar
from recsys_spark.metrics.measure import measure
from recsys_spark.metrics.spread import TrainingCounts
from recsys_spark.tables import SIMILAR_ITEMS
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste

DIMS = 4
Expected = dict[str, list[str]]


@pytest.fixture(scope="session")
def item_ids(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> MappedStrings:
    path = tmp_path_factory.mktemp("ids") / "items.arrow"
    return distribute_strings(spark, write_strings(path, iter([pa.array([f"i{item}" for item in range(N_ITEMS)])])))


@pytest.fixture(scope="session")
def vectors() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Users, items in whole eighths (products are exact, and tie often), who is trained, what is a candidate."""
    random = np.random.default_rng(2)
    users = (random.integers(-8, 9, (N_USERS, DIMS)) / 8).astype(np.float32)
    items = (random.integers(-8, 9, (N_ITEMS, DIMS)) / 8).astype(np.float32)
    items[11] = items[3]
    is_trained, is_candidate = np.ones(N_USERS, bool), np.ones(N_ITEMS, bool)
    is_trained[[5, 9]], is_candidate[[2, 16]] = False, False
    return users, items, is_trained, is_candidate


def embedding_frame(
    spark: SparkSession, users: NDArray[np.float32], is_trained: NDArray[np.bool_], block: int
) -> DataFrame:
    rows = [
        (
            number,
            bytearray(users[start : start + block].tobytes()),
            bytearray(is_trained[start : start + block].astype(np.uint8).tobytes()),
        )
        for number, start in enumerate(range(0, N_USERS, block))
    ]
    return spark.createDataFrame(rows, "block_id int, vectors binary, is_trained binary")


def best(scores: NDArray[np.float64], excluded: NDArray[np.bool_], k: int) -> Expected:
    """Lists by sorting everything: by score, then by position."""
    lists = {}
    for user in range(N_USERS):
        allowed = [item for item in range(N_ITEMS) if not excluded[user, item] and np.isfinite(scores[user, item])]
        lists[f"u{user}"] = [f"i{item}" for item in sorted(allowed, key=lambda item: (-scores[user, item], item))[:k]]
    return lists


def found_lists(frame: DataFrame) -> Expected:
    return {row["user_id"]: row["item_ids"] for row in frame.collect()}


@pytest.mark.parametrize(("block_users", "shard_bytes", "k"), [(23, 1 << 20, 5), (4, 3 * 4 * DIMS, 5), (10, 1, 40)])
def test_embedding_lists_are_the_best_by_sorting(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    item_ids: MappedStrings,
    vectors: tuple[NDArray, ...],
    tmp_path: Path,
    block_users: int,
    shard_bytes: int,
    k: int,
) -> None:
    users, items, is_trained, is_candidate = vectors
    candidates = distribute_items(spark, items, is_candidate, tmp_path, shard_bytes)
    joined = MovedBlocks((blocks(block_users), embedding_frame(spark, users, is_trained, block_users)))
    lists = recommend(joined, EmbeddingScorer(candidates), item_ids, k).frame()
    scores = np.where(is_candidate, users.astype(float) @ items.T.astype(float), -np.inf)
    assert found_lists(lists) == best(scores, ~np.isnan(taste.ratings), k)
    tiers = {row["user_id"]: row["tier"] for row in lists.collect()}
    assert tiers == {f"u{u}": "embedding" if is_trained[u] else "popularity" for u in range(N_USERS)}
    for row in lists.collect():
        mine = [scores[int(row["user_id"][1:]), int(item[1:])] for item in row["item_ids"]]
        np.testing.assert_array_equal(row["scores"], np.float32(mine))


def test_seen_items_may_be_recommended_on_demand(
    spark: SparkSession, blocks: Blocks, item_ids: MappedStrings, vectors: tuple[NDArray, ...], tmp_path: Path
) -> None:
    users, items, is_trained, is_candidate = vectors
    candidates = distribute_items(spark, items, is_candidate, tmp_path, 1 << 20)
    joined = MovedBlocks((blocks(10), embedding_frame(spark, users, is_trained, 10)))
    scores = np.where(is_candidate, users.astype(float) @ items.T.astype(float), -np.inf)
    nothing = np.zeros(scores.shape, bool)
    lists = recommend(joined, EmbeddingScorer(candidates), item_ids, 6, exclude_seen=False).frame()
    assert found_lists(lists) == best(scores, nothing, 6)


def popularity_of(spark: SparkSession, taste: Taste, folder: Path) -> tuple[PopularityScorer, NDArray[np.float32]]:
    popularity = (~np.isnan(taste.ratings)).sum(axis=0).astype(np.float32)
    return PopularityScorer(distribute_items(spark, popularity[:, None], popularity > 0, folder, 1 << 20)), popularity


def test_measured_lists_hide_the_test_items_and_nothing_else(
    spark: SparkSession, taste: Taste, blocks: Blocks, tmp_path: Path
) -> None:
    scorer, popularity = popularity_of(spark, taste, tmp_path)
    lists = measure_lists(MovedBlocks((blocks(10),)), scorer, 5).cache()
    is_pair = ~np.isnan(taste.ratings)
    known, relevant = is_pair & (taste.splits < 2), is_pair & (taste.splits == 2)
    expected = best(np.tile(popularity.astype(float), (N_USERS, 1)), known, 5)
    found = {row["user_idx"]: row for row in lists.collect()}
    assert set(found) == set(np.flatnonzero(relevant.any(axis=1)))
    hits, users = 0, 0
    for user, row in found.items():
        assert [f"i{item}" for item in row["item_idxs"]] == expected[f"u{user}"]
        assert row["relevant_idxs"] == list(np.flatnonzero(relevant[user]))
        hits += bool(set(row["item_idxs"][:3]) & set(row["relevant_idxs"]))
        users += 1
    trained = TrainingCounts((is_pair & (taste.splits == 0)).sum(axis=0), N_USERS)
    metrics = {(row["metric"], row["k"]): row for row in measure(lists, "popularity", (3, 5), trained).rows}
    assert metrics["hit_rate", 3]["value"] == pytest.approx(hits / users)
    assert metrics["hit_rate", 3]["users"] == users
    covered = {item for row in found.values() for item in row["item_idxs"][:3]}
    assert metrics["item_coverage", 3]["value"] == pytest.approx(len(covered) / N_ITEMS)
    popular = [trained.items[item] for row in found.values() for item in row["item_idxs"][:3]]
    assert metrics["average_popularity", 3]["value"] == pytest.approx(np.mean(popular))


def test_similar_items_are_the_nearest(
    spark: SparkSession, vectors: tuple[NDArray, ...], item_ids: MappedStrings, tmp_path: Path
) -> None:
    _, items, _, _ = vectors
    distances = np.sqrt(((items[:, None].astype(float) - items[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distances, np.inf)
    expected = {
        f"i{a}": [f"i{b}" for b in sorted(range(N_ITEMS), key=lambda b, a=a: (distances[a, b], b))[:4]]
        for a in range(N_ITEMS)
    }
    for shard_bytes in (1 << 20, 5 * 4 * (DIMS + 1)):
        entities = distribute_entities(spark, items, item_ids, tmp_path / str(shard_bytes), shard_bytes)
        rows = find_similar(spark, entities, 4, SIMILAR_ITEMS).frame().collect()
        assert {row["item_id"]: row["similar_item_ids"] for row in rows} == expected
        assert {row["item_id"]: row["distances"][0] for row in rows}["i3"] == 0.0  # its double, i11


def test_pairs_are_predicted_or_say_why_not(spark: SparkSession, vectors: tuple[NDArray, ...], tmp_path: Path) -> None:
    users, items, is_trained, is_candidate = vectors
    candidates = distribute_items(spark, items, is_candidate, tmp_path, 3 * 4 * DIMS)
    pairs = [
        ("u0", "i0"),
        ("u22", "i15"),
        ("u22", "i15"),
        ("u5", "i0"),
        ("u0", "i2"),
        ("nobody", "i0"),
        ("u0", "nothing"),
    ]
    scored = predict_pairs(
        spark.createDataFrame(pairs, "user_id string, item_id string"),
        spark.createDataFrame([(u, f"u{u}") for u in range(N_USERS)], "user_idx int, user_id string"),
        spark.createDataFrame([(i, f"i{i}") for i in range(N_ITEMS)], "item_idx int, item_id string"),
        embedding_frame(spark, users, is_trained, 10),
        candidates,
        10,
    )
    rows = with_ratings(scored, RatingScale(1.0, 5.0, 0.2)).collect()
    assert sorted((row["user_id"], row["item_id"]) for row in rows) == sorted(pairs)
    statuses = {(row["user_id"], row["item_id"]): row["status"] for row in rows}
    assert statuses["u5", "i0"] == "untrained_user"
    assert statuses["u0", "i2"] == "untrained_item"
    assert statuses["nobody", "i0"] == "unknown_user"
    assert statuses["u0", "nothing"] == "unknown_item"
    for row in rows:
        if row["status"] == "predicted":
            score = float(users[int(row["user_id"][1:])] @ items[int(row["item_id"][1:])])
            assert row["score"] == pytest.approx(score)
            assert row["rating"] == pytest.approx(1 + 4 * (min(max(score, 0.2), 1) - 0.2) / 0.8)
        else:
            assert (row["score"], row["rating"]) == (None, None)
