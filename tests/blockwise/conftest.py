from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.blockwise.user_rows import RowSource
from recsys_spark.transforms.matrix import build_user_blocks

N_USERS, N_ITEMS = 23, 17
RUN_DATE = datetime.date(2024, 3, 10)


@dataclass(frozen=True)
class Taste:
    """A small matrix: `ratings` is nan where there is no pair; `splits` 0 train, 1 validation, 2 test.

    `ages` are days before the end of `RUN_DATE`, nan where a pair has no time.
    """

    ratings: NDArray[np.float32]
    splits: NDArray[np.int64]
    ages: NDArray[np.float64]

    def known(self, hold_out: bool) -> NDArray[np.float32]:
        """Ratings a model may see, nan elsewhere."""
        return np.where(self.splits == 0, self.ratings, np.nan) if hold_out else self.ratings


@pytest.fixture(scope="session")
def taste() -> Taste:
    random = np.random.default_rng(8)
    is_pair = random.random((N_USERS, N_ITEMS)) < 0.35
    is_pair[5] = False  # nobody knows anything about this user
    is_pair[7] = is_pair[8]  # two users alike
    ratings = np.where(is_pair, random.integers(0, 11, (N_USERS, N_ITEMS)) / 10, np.nan).astype(np.float32)
    ratings[7] = ratings[8]
    splits = random.choice([0, 0, 0, 1, 2], (N_USERS, N_ITEMS))
    splits[7] = splits[8]
    ages = np.where(random.random((N_USERS, N_ITEMS)) < 0.2, np.nan, random.integers(0, 40, (N_USERS, N_ITEMS)) / 4)
    return Taste(ratings, splits, ages)


Blocks = Callable[[int], DataFrame]
Source = Callable[..., RowSource]


@pytest.fixture(scope="session")
def blocks(spark: SparkSession, taste: Taste) -> Blocks:
    """User blocks of the matrix, for a number of users a block."""
    names = ["train", "validation", "test"]
    end = datetime.datetime(2024, 3, 11)

    def at(age: float) -> datetime.datetime | None:
        return None if np.isnan(age) else end - datetime.timedelta(days=age)

    pairs = [
        (
            int(user),
            int(item),
            float(taste.ratings[user, item]),
            names[taste.splits[user, item]],
            at(taste.ages[user, item]),
        )
        for user, item in np.argwhere(~np.isnan(taste.ratings))
    ]
    users = spark.createDataFrame([(user, f"u{user}") for user in range(N_USERS)], "user_idx int, user_id string")
    interactions = spark.createDataFrame(
        pairs, "user_idx int, item_idx int, rating float, split string, last_at timestamp"
    )
    made: dict[int, DataFrame] = {}

    def build(block_users: int) -> DataFrame:
        if block_users not in made:
            made[block_users] = build_user_blocks(users, interactions, block_users, RUN_DATE).cache()
        return made[block_users]

    return build


@pytest.fixture
def source(blocks: Blocks, tmp_path: Path) -> Source:
    """The blocks as a local folder, as the driver reads them."""

    def write(block_users: int, hold_out: bool = False) -> RowSource:
        folder = tmp_path / f"blocks-{block_users}"
        if not folder.exists():
            blocks(block_users).write.parquet(str(folder))
        return RowSource(folder, N_USERS, N_ITEMS, hold_out)

    return write
