from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.neighbors import Similarity, attach_neighbors, find_neighbors, neighbor_count
from recsys_spark.blockwise.user_rows import RowSource, UserRows, distribute_user_rows
from recsys_spark.errors import SettingsError
from recsys_spark.kernels.csr import CsrRows, Weighting, column_weights, weigh_rows
from recsys_spark.tables import USER_NEIGHBORS
from tests.blockwise.cases import LARGE, N_ITEMS, N_USERS, SMALL, Matrix, random_matrix
from tests.kernels.cases import brute_force_nearest

MATRIX = random_matrix()
INVERSE = Similarity("inverse", 1.0)


def distributed(
    spark: SparkSession, scratch: Path, weighting: Weighting, hold_out: bool, block_users: int, shard_bytes: int
) -> UserRows:
    source = RowSource(MATRIX.folder(scratch / "blocks", block_users), N_USERS, N_ITEMS, hold_out)
    return distribute_user_rows(spark, source, weighting, scratch / "rows", shard_bytes)


def weighed(matrix: Matrix, weighting: Weighting, hold_out: bool) -> CsrRows:
    """The rows weighed at once, with the document frequencies of what may be seen."""
    rows = matrix.rows(hold_out)
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
    ("hold_out", "k", "block_users", "shard_bytes"),
    [(False, 5, 4, SMALL), (True, N_USERS - 1, 23, LARGE)],
    ids=["five, small blocks and shards", "all, hold-out left out, one block and shard"],
)
def test_neighbors_equal_a_brute_force(
    spark: SparkSession,
    tmp_path: Path,
    weighting: Weighting,
    hold_out: bool,
    k: int,
    block_users: int,
    shard_bytes: int,
) -> None:
    rows = distributed(spark, tmp_path, weighting, hold_out, block_users, shard_bytes)
    assert len(rows.shards) == (1 if shard_bytes == LARGE else 5), "blocks 5 and 6 of six share a shard"
    found = find_neighbors(MATRIX.frame(spark, block_users), rows, k, INVERSE)
    assert found.schema == USER_NEIGHBORS.schema
    assert sorted(map(tuple, found.collect()), key=lambda row: (row[0], row[4])) == expected_rows(
        weighed(MATRIX, weighting, hold_out), k
    )


def test_alike_users_are_nearest_and_a_user_is_not_his_own_neighbor(spark: SparkSession, tmp_path: Path) -> None:
    rows = distributed(spark, tmp_path, "none", False, 5, SMALL)
    nearest = {row["user_idx"]: row for row in find_neighbors(MATRIX.frame(spark, 5), rows, 1, INVERSE).collect()}
    assert (nearest[2]["neighbor_idx"], nearest[2]["distance"], nearest[2]["similarity"]) == (17, 0.0, 1.0)
    assert nearest[17]["neighbor_idx"] == 2
    assert all(row["neighbor_idx"] != user for user, row in nearest.items())


def test_gaussian_similarity_falls_with_the_square_of_the_distance() -> None:
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
def test_attached_neighbors_are_those_of_the_blocks_users(spark: SparkSession, block_users: int) -> None:
    random = np.random.default_rng(2)
    listed = {user: random.permutation(N_USERS)[: random.integers(0, 6)].tolist() for user in range(N_USERS)}
    listed[0], listed[8:12] = [], None  # type: ignore[index]
