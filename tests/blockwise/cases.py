"""A small user-item matrix as a dense array, as the table `user_blocks`, and as its Parquet folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.blockwise.blocks import TEST, TRAIN, VALIDATION
from recsys_spark.blockwise.files import MappedStrings
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.tables import USER_BLOCKS
from tests.kernels.cases import rows_of

N_USERS, N_ITEMS = 23, 11
SMALL, LARGE = 60, 1 << 30


@dataclass(frozen=True)
class Matrix:
    """Ratings (m, n), NaN where nothing is stored, and the split of each entry."""

    ratings: NDArray[np.float32]
    splits: NDArray[np.uint8]

    @property
    def is_stored(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.ratings)

    def is_in(self, *splits: int) -> NDArray[np.bool_]:
        return self.is_stored & np.isin(self.splits, splits)

    def rows(self, hold_out: bool) -> CsrRows:
        """What a model may see."""
        return rows_of(np.where(self.is_in(TRAIN), self.ratings, np.nan) if hold_out else self.ratings)

    def blocks(self, block_users: int) -> list[dict[str, Any]]:
        """Rows of `user_blocks`, the last block first."""
        starts = range(0, len(self.ratings), block_users)
        return [self._block(start // block_users, slice(start, start + block_users)) for start in reversed(starts)]

    def frame(self, spark: SparkSession, block_users: int) -> DataFrame:
        rows = [tuple(block[name] for name in USER_BLOCKS.schema.names) for block in self.blocks(block_users)]
        return spark.createDataFrame(rows, USER_BLOCKS.schema)

    def folder(self, path: Path, block_users: int) -> Path:
        path.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.blocks(block_users)), path / "part-0.parquet")
        return path

    def _block(self, block_id: int, users: slice) -> dict[str, Any]:
        rows = rows_of(self.ratings[users])
        return {
            "block_id": block_id,
            "first_user_idx": users.start,
            "user_ids": [user_id(user) for user in range(len(self.ratings))[users]],
            "indptr": rows.indptr.tobytes(),
            "indices": rows.indices.tobytes(),
            "ratings": rows.values.tobytes(),
            "splits": self.splits[users][self.is_stored[users]].tobytes(),
        }


def random_matrix(seed: int = 7) -> Matrix:
    """Ratings in fifths; a user without any, one who has everything, and two who are alike."""
    random = np.random.default_rng(seed)
    ratings = (random.integers(1, 6, (N_USERS, N_ITEMS)) / 5).astype(np.float32)
    ratings[random.random(ratings.shape) < 0.6] = np.nan
    ratings[4] = np.nan
    ratings[9] = 0.6
    ratings[17] = ratings[2]
    splits = random.choice([TRAIN, TRAIN, TRAIN, VALIDATION, TEST], ratings.shape).astype(np.uint8)
    splits[17] = splits[2]
    return Matrix(ratings, splits)


def user_id(user: int) -> str:
    return f"user {user}"


def item_id(item: int) -> str:
    return f"item {item}"


def item_ids(spark: SparkSession, scratch: Path) -> MappedStrings:
    """The ids of all items, distributed; the index lies in no order."""
    folder = scratch / "items"
    folder.mkdir()
    order = np.random.default_rng(1).permutation(N_ITEMS).tolist()
    index = pa.table({"item_idx": pa.array(order, pa.int32()), "item_id": [item_id(item) for item in order]})
    pq.write_table(index, folder / "part-0.parquet")
    return distribute_ids(spark, folder, "item", scratch / "ids")
