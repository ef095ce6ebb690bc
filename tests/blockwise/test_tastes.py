from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise.blocks import read_blocks
from recsys_spark.blockwise.tastes import distribute_tastes
from tests.blockwise.conftest import N_ITEMS, N_USERS, Source, Taste


@pytest.mark.parametrize("hold_out", [False, True])
@pytest.mark.parametrize("half_life", [None, 10.0])
def test_tastes_are_sums_by_rating_and_age(
    spark: SparkSession, taste: Taste, source: Source, tmp_path: Path, hold_out: bool, half_life: float | None
) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((N_ITEMS, 3)).astype(np.float32)
    vectors[:2] = 0  # nothing is known of them
    tastes = distribute_tastes(spark, vectors, half_life, hold_out, tmp_path / "tastes")
    weights = np.nan_to_num(taste.ratings)
    if half_life is not None:
        weights = weights * 2.0 ** (-np.nan_to_num(taste.ages) / half_life)
    if hold_out:
        weights = weights * (taste.splits == 0)
    expected = weights @ vectors.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, lengths, out=np.zeros_like(expected), where=lengths > 0)
    found = {}
    for block_users in (4, 100):
        made = np.zeros((N_USERS, 3), np.float32)
        for block in read_blocks(source(block_users).folder):
            first = block.column("first_user_idx")[0].as_py()
            some = tastes.of(block)
            made[first : first + len(some)] = some
        np.testing.assert_allclose(made, expected, atol=1e-5)
        found[block_users] = made
    np.testing.assert_array_equal(found[4], found[100], err_msg="a user's bits do not depend on his block")
