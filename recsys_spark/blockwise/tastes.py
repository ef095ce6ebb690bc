"""Users' tastes: the pooled content of what they have, by ratings and age."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.blocks import TRAIN, array_of, rows_of
from recsys_spark.blockwise.files import MappedArray, distribute_array, save_array
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.user_rows import ROW_COLUMNS
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.pooling import pool_weighted, unit_rows

TASTE_COLUMNS = (*ROW_COLUMNS, "ages")


@dataclass(frozen=True)
class Tastes:
    """Item vectors, (n_items, d), mapped, of length 1, or 0 where nothing is known of an item."""

    vectors: MappedArray
    half_life_days: float | None
    hold_out: bool
    columns = TASTE_COLUMNS

    def of(self, block: Block) -> NDArray[np.float32]:
        """The taste of each user of a block, (users, d), of length 1; 0 without an item of which something is known.

        The sum of the vectors of the user's items, times rating and 2^(-age / half-life); an item without a time counts
        as a new one.
        """
        rows, weights = self.weighted_rows(block)
        return unit_rows(pool_weighted(rows, weights, self.vectors.load()))

    def weighted_rows(self, block: Block) -> tuple[CsrRows, NDArray[np.float32]]:
        """The items of each user of a block, and how much each counts, (entries,)."""
        rows = rows_of(block, len(self.vectors.load()))
        weights = rows.values
        if self.half_life_days is not None:
            ages = np.nan_to_num(np.maximum(array_of(block, "ages", np.float32), 0.0), nan=0.0)
            weights = weights * np.exp2(-ages / np.float32(self.half_life_days))
        if self.hold_out:
            weights = weights * (array_of(block, "splits", np.uint8) == TRAIN)
        return rows, weights


def distribute_tastes(
    spark: SparkSession, vectors: NDArray[np.float32], half_life_days: float | None, hold_out: bool, scratch: Path
) -> Tastes:
    """Hand the items' vectors, (n_items, d), to the executors; disk there and on the driver: 4 bytes x d an item."""
    scratch.mkdir(parents=True, exist_ok=True)
    file = distribute_array(spark, save_array(scratch / "content-vectors.npy", vectors))
    return Tastes(file, half_life_days, hold_out)
