from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.neighbors import find_neighbors, neighbor_count, pack_neighbors
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.blockwise.user_rows import RowSource, distribute_user_rows
from recsys_spark.errors import SettingsError
from recsys_spark.kernels.csr import CsrRows, Weighting, column_weights, weigh_rows
from recsys_spark.kernels.similarity import Similarity
from recsys_spark.tables import USER_NEIGHBORS
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Taste
from tests.kernels.cases import brute_force_nearest, rows_of

INVERSE = Similarity("inverse", 1.0)
Source = Callable[..., RowSource]


def weighed(rows: CsrRows, weighting: Weighting) -> CsrRows:
    """The rows weighed at once, with the document frequencies of what may be seen."""
    if weighting not in ("tfidf", "bm25"):
        return weigh_rows(rows, weighting)
    frequency = np.bincount(rows.indices, minlength=N_ITEMS)
    return weigh_rows(rows, weighting, column_weights(frequency, N_USERS, weighting), rows.nnz / N_USERS)


def expected_rows(rows: CsrRows, k: int) -> list[tuple[Any, ...]]:
    """Rows of `user_neighbors` by sorting all distances."""
    indices, distances = brute_force_nearest(rows, np.arange(rows.n_rows), rows, 0, k)
    return [
        (user, neighbor, distance, float(np.float32(1 / (1 + distance))), rank)
        for user in range(rows.n_rows)
        for rank, (neighbor, distance) in enumerate(zip(indices[user], distances[user], strict=True), start=1)
        if neighbor >= 0
    ]


@pytest.mark.parametrize("weighting", get_args(Weighting))
@pytest.mark.parametrize(
    ("hold_out", "k", "block_users", "shard_bytes", "shards"),
    [(False, 5, 4, 60, 6), (True, neighbor_count("all", N_USERS), 23, 1 << 30, 1)],
    ids=["five, small blocks and shards", "all, hold-out left out, one block and shard"],
)
def test_neighbors_equal_a_brute_force(
    spark: SparkSession,
    taste: Taste,
    blocks: Blocks,
    source: Source,
    tmp_path: Path,
    weighting: Weighting,
    hold_out: bool,
    k: int,
    block_users: int,
    shard_bytes: int,
    shards: int,
) -> None:
    rows = distribute_user_rows(spark, source(block_users, hold_out), weighting, tmp_path / "rows", shard_bytes)
    assert len(rows.shards) == shards
    found = find_neighbors(MovedBlocks((blocks(block_users),)), rows, k, INVERSE).frame()
    assert found.schema.names == USER_NEIGHBORS.schema.names
    expected = expected_rows(weighed(rows_of(taste.known(hold_out)), weighting), k)
    assert sorted(map(tuple, found.collect()), key=lambda row: (row[0], row[4])) == expected
    assert len(expected) == N_USERS * k


def test_alike_users_are_nearest_and_a_user_is_not_his_own_neighbor(
    spark: SparkSession, blocks: Blocks, source: Source, tmp_path: Path
) -> None:
    rows = distribute_user_rows(spark, source(4), "none", tmp_path / "rows", 60)
    nearest = {
        row["user_idx"]: row for row in find_neighbors(MovedBlocks((blocks(4),)), rows, 1, INVERSE).frame().collect()
    }
    assert (nearest[7]["neighbor_idx"], nearest[7]["distance"], nearest[7]["similarity"]) == (8, 0.0, 1.0)
    assert nearest[8]["neighbor_idx"] == 7
    assert all(row["neighbor_idx"] != user for user, row in nearest.items())


def test_similarity_falls_with_distance() -> None:
    distances = np.array([[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(Similarity("gaussian", 2.0).of(distances), np.exp([[0.0, -1 / 8, -4 / 8]]), rtol=1e-6)
    np.testing.assert_allclose(INVERSE.of(distances), [[1.0, 1 / 2, 1 / 3]], rtol=1e-6)


def test_all_neighbors_are_refused_for_many_users() -> None:
    assert [neighbor_count("all", users) for users in (1, 2, 20_000)] == [1, 1, 19_999]
    assert [neighbor_count(50, users) for users in (1, 10, 1000)] == [1, 9, 50]
    message = "neighbors.k = 'all' writes users x .* 400,020,000 for 20,001 users; it is refused above 20,000 users"
    with pytest.raises(SettingsError, match=message):
        neighbor_count("all", 20_001)


@pytest.mark.parametrize("block_users", [4, 23])
def test_packed_neighbors_are_those_of_the_blocks_users(spark: SparkSession, blocks: Blocks, block_users: int) -> None:
    random = np.random.default_rng(2)
    listed = [random.permutation(N_USERS)[: random.integers(0, 6)].tolist() for _ in range(N_USERS)]
    listed[8:12] = [[], [], [], []]  # a whole block of four
    rows = [
        (user, neighbor, 1.0, neighbor / 32, rank)
        for user, neighbors in enumerate(listed)
        for rank, neighbor in enumerate(neighbors, start=1)
    ]
    neighbors = spark.createDataFrame([rows[place] for place in random.permutation(len(rows))], USER_NEIGHBORS.schema)
    found: dict[int, list[int]] = {}
    for block in pack_neighbors(blocks(block_users), neighbors).collect():
        indptr = np.frombuffer(block["neighbor_indptr"], np.int64)
        indices = np.frombuffer(block["neighbor_indices"], np.int32)
        np.testing.assert_array_equal(np.frombuffer(block["similarities"], np.float32), indices / np.float32(32))
        for place in range(len(indptr) - 1):
            found[block["block_id"] * block_users + place] = indices[indptr[place] : indptr[place + 1]].tolist()
    assert found == dict(enumerate(listed))


def test_blocks_without_any_neighbor_stay(spark: SparkSession, blocks: Blocks) -> None:
    packed = pack_neighbors(blocks(10), spark.createDataFrame([], USER_NEIGHBORS.schema)).collect()
    assert sorted(block["block_id"] for block in packed) == [0, 1, 2]
    assert {len(block["neighbor_indices"]) for block in packed} == {0}
