"""Lists by what is popular in the user's segment, in the place of another scorer's popularity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.files import distribute_array, distribute_strings, save_arrays, write_strings
from recsys_spark.blockwise.items import distribute_items
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.plan import Block, MovedBlocks
from recsys_spark.blockwise.scorers import PopularityScorer, Scored
from recsys_spark.blockwise.segments import SegmentScorer
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.topk import TopK
from recsys_spark.popularity import ONE, rank_segments
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste
from tests.blockwise.test_scorers import expected, published

SEGMENTS = np.array([user % 4 - 1 for user in range(N_USERS)], np.int32)
COUNTS = np.zeros((3, N_ITEMS), np.int64)
COUNTS[0] = ONE * (np.arange(N_ITEMS) % 5)
COUNTS[1, [2, 11]] = 3 * ONE, ONE // 2
COUNTS[2] = ONE
POPULARITY = np.array([0, 3, 3, 1, 0, 2, 5, 1, 1, 0, 2, 8, 3, 3, 0, 1, 2], np.float32) / np.float32(8)


def segment_scorer(spark: SparkSession, scorer: Any, folder: Path) -> SegmentScorer:
    indptr, items, scores = rank_segments(COUNTS)
    arrays = {"segments": SEGMENTS, "indptr": indptr, "items": items, "scores": scores}
    files = {name: distribute_array(spark, path) for name, path in save_arrays(folder / "segments", arrays).items()}
    return SegmentScorer(scorer, **files)


@pytest.mark.parametrize(("block_users", "k"), [(4, 3), (23, 3), (7, 40)])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_segments_items_come_first(
    spark: SparkSession, taste: Taste, blocks: Blocks, tmp_path: Path, block_users: int, k: int, exclude_seen: bool
) -> None:
    items = distribute_items(spark, POPULARITY[:, None], POPULARITY > 0, tmp_path / "popular", 1 << 30)
    scorer = segment_scorer(spark, PopularityScorer(items), tmp_path)
    names = pa.array([f"i{item}" for item in range(N_ITEMS)])
    item_ids = distribute_strings(spark, write_strings(tmp_path / "items.arrow", iter([names])))
    frame = recommend(MovedBlocks((blocks(block_users),)), scorer, item_ids, k, exclude_seen).frame()
    is_seen = ~np.isnan(taste.ratings) & exclude_seen
    assert published(frame) == expected(_scores(is_seen), _tiers(), k)


def _scores(is_seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Those of the segment where it has some, else the popularity with all users, less 1."""
    full = np.where(is_seen | (POPULARITY == 0), np.float32(-np.inf), POPULARITY)
    for user, segment in enumerate(SEGMENTS):
        if segment >= 0:
            counts = COUNTS[segment] / ONE
            own = (np.log1p(counts) / np.log1p(counts.max())).astype(np.float32)
            full[user] = np.where(is_seen[user], -np.inf, np.where(counts > 0, own, full[user] - np.float32(1)))
    return full


def _tiers() -> NDArray[Any]:
    return np.where(SEGMENTS >= 0, "segment_popularity", "popularity")


PAIR, PAIR_SCORES = np.array([0, 1]), np.array([0.75, 0.5], np.float32)


@dataclass(frozen=True)
class Halves:
    """Lists of a model for users of even positions, of popularity for the others: item 0, then item 1."""

    columns = ("ratings",)

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        indices, scores = (np.tile(pair, (excluded.n_rows, 1)) for pair in (PAIR, PAIR_SCORES))
        is_even = np.arange(excluded.n_rows) % 2 == 0
        return Scored(TopK(indices, scores), np.where(is_even, "model", "popularity"))


def test_lists_with_a_model_behind_them_stay(spark: SparkSession, blocks: Blocks, tmp_path: Path) -> None:
    scorer = segment_scorer(spark, Halves(), tmp_path)
    assert set(scorer.columns) == {"ratings", "first_user_idx", "indptr"}
    (block,) = blocks(N_USERS).toArrow().to_batches()
    best, tiers, _ = scorer(block, IndexLists(np.zeros(N_USERS + 1, np.int64), np.zeros(0, np.int32)), 2)
    is_own = (np.arange(N_USERS) % 2 == 1) & (SEGMENTS >= 0)
    assert tiers.tolist() == np.where(is_own, "segment_popularity", ["model", "popularity"] * 11 + ["model"]).tolist()
    for user in range(N_USERS):
        own = np.argsort(-COUNTS[SEGMENTS[user]], kind="stable")[:2].tolist()
        assert best.indices[user].tolist() == (own if is_own[user] else PAIR.tolist())
        assert best.scores[user].tolist() == PAIR_SCORES.tolist() or is_own[user]
