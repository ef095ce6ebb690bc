"""Users folded in against normal equations in float64, however the blocks are cut and reach the tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.fold_in import FoldIn, distribute_least_squares, distribute_pooling, fold_in_users
from recsys_spark.blockwise.plan import Blocks as AnyBlocks
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.blockwise.stored import stored_blocks
from recsys_spark.kernels.layout import EXTRA_COLUMNS
from recsys_spark.kernels.least_squares import WholeDataLoss
from recsys_spark.storage.mapped import write_parts
from recsys_spark.tables import USER_EMBEDDINGS
from tests.blockwise.conftest import N_ITEMS, N_USERS, Blocks, Source, Taste

DIMS = 5
LOSS = WholeDataLoss(unobserved_weight=0.2, l2=0.1)
VECTORS = np.random.default_rng(0).standard_normal((N_ITEMS, DIMS)).astype(np.float32)
IS_TRAINED = np.arange(N_ITEMS) % 5 != 3


def expected(seen: NDArray[np.bool_], least: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The vectors that minimise the loss over trained items, and who has enough of them."""
    items = VECTORS[IS_TRAINED].astype(np.float64)
    vectors, is_enough = np.zeros((len(seen), DIMS)), seen[:, IS_TRAINED].sum(axis=1) >= least
    for user in np.flatnonzero(is_enough):
        has = seen[user, IS_TRAINED].astype(np.float64)
        penalty = LOSS.l2 * (has.sum() + LOSS.unobserved_weight * len(items))
        matrix = items.T @ ((has + LOSS.unobserved_weight)[:, None] * items) + penalty * np.eye(DIMS)
        vectors[user] = np.linalg.solve(matrix, items.T @ has)
    return vectors, is_enough


def folded(blocks: AnyBlocks, fold_in: FoldIn, hold_out: bool) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    frame = fold_in_users(blocks, fold_in, N_ITEMS, hold_out, USER_EMBEDDINGS).frame()
    rows = sorted(frame.collect(), key=lambda row: row["block_id"])
    vectors = np.frombuffer(b"".join(row["vectors"] for row in rows), np.float32)
    return vectors.reshape(N_USERS, -1), np.frombuffer(b"".join(row["is_trained"] for row in rows), np.uint8)


@pytest.mark.parametrize("hold_out", [True, False])
@pytest.mark.parametrize("least", [1, 4])
def test_users_have_the_vectors_of_the_normal_equations(
    spark: SparkSession, tmp_path: Path, blocks: Blocks, source: Source, taste: Taste, hold_out: bool, least: int
) -> None:
    fold_in = distribute_least_squares(spark, VECTORS, IS_TRAINED, LOSS, least, tmp_path / "items")
    vectors, is_enough = expected(~np.isnan(taste.known(hold_out)), least)
    assert not is_enough[5]
    assert 0 < is_enough.sum() < N_USERS
    found, flags = folded(MovedBlocks((blocks(8),)), fold_in, hold_out)
    np.testing.assert_array_equal(flags, is_enough)
    np.testing.assert_allclose(found[:, :DIMS], vectors, atol=1e-5)
    extras = found[:, DIMS:]
    assert extras.shape == (N_USERS, EXTRA_COLUMNS)
    np.testing.assert_array_equal(extras, np.column_stack([is_enough, np.zeros(N_USERS), ~is_enough]))
    whole, _ = folded(stored_blocks(spark, [source(N_USERS).folder]), fold_in, hold_out)
    assert whole.tobytes() == found.tobytes(), "bits depend on the blocks"


@pytest.mark.parametrize("hold_out", [True, False])
def test_users_have_the_pooled_vectors_of_their_items(
    spark: SparkSession, tmp_path: Path, blocks: Blocks, source: Source, taste: Taste, hold_out: bool
) -> None:
    fold_in = distribute_pooling(spark, VECTORS, IS_TRAINED, is_cosine=True, least_interactions=4, scratch=tmp_path)
    seen = ~np.isnan(taste.known(hold_out))[:, IS_TRAINED]
    is_enough = seen.sum(axis=1) >= 4
    pooled = seen.astype(np.float64) @ VECTORS[IS_TRAINED]
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True).clip(1e-9) * is_enough[:, None]
    found, flags = folded(MovedBlocks((blocks(8),)), fold_in, hold_out)
    np.testing.assert_array_equal(flags, is_enough)
    assert 0 < is_enough.sum() < N_USERS
    np.testing.assert_allclose(found[:, :DIMS], expected, atol=1e-5)
    whole, _ = folded(stored_blocks(spark, [source(N_USERS).folder]), fold_in, hold_out)
    assert whole.tobytes() == found.tobytes(), "bits depend on the blocks"


def test_without_a_trained_item_nobody_has_a_vector(spark: SparkSession, tmp_path: Path, blocks: Blocks) -> None:
    fold_in = distribute_least_squares(spark, VECTORS, np.zeros(N_ITEMS, bool), LOSS, 1, tmp_path / "items")
    found, flags = folded(MovedBlocks((blocks(8),)), fold_in, hold_out=False)
    assert not flags.any()
    np.testing.assert_array_equal(found, np.eye(DIMS + EXTRA_COLUMNS)[[-1] * N_USERS])


def test_a_file_has_a_row_group_for_each_block(spark: SparkSession, tmp_path: Path, source: Source) -> None:
    fold_in = distribute_least_squares(spark, VECTORS, IS_TRAINED, LOSS, 1, tmp_path / "items")
    mapped = fold_in_users(stored_blocks(spark, [source(2).folder]), fold_in, N_ITEMS, False, USER_EMBEDDINGS)
    parts = write_parts(mapped, tmp_path / "written", USER_EMBEDDINGS.group_rows)
    assert sum(part.rows for part in parts) == -(-N_USERS // 2)
    for part in parts:
        assert pq.ParquetFile(tmp_path / "written" / part.name).num_row_groups == part.rows
