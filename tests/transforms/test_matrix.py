from __future__ import annotations

import datetime

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.transforms.matrix import build_user_blocks

RUN_DATE = datetime.date(2024, 3, 10)


def taken(item: int) -> datetime.datetime:
    return datetime.datetime(2024, 3, 10 - int(item), 12)


@pytest.mark.parametrize("block_users", [1, 3, 4, 100])
def test_blocks_hold_the_matrix(spark: SparkSession, block_users: int) -> None:
    random = np.random.default_rng(5)
    n_users, n_items = 10, 7
    ratings = np.where(random.random((n_users, n_items)) < 0.4, random.integers(0, 5, (n_users, n_items)) / 4, np.nan)
    ratings[4] = np.nan  # a user without interactions
    entries = [
        (int(u), int(i), float(ratings[u, i]), "test" if i == 3 else "train", None if i == 6 else taken(i))
        for u, i in np.argwhere(~np.isnan(ratings))
    ]
    users = spark.createDataFrame(
        [(u, f"u{u}", {}) for u in range(n_users)], "user_idx int, user_id string, attributes map<string,string>"
    )
    schema = "user_idx int, item_idx int, rating float, split string, last_at timestamp"
    interactions = spark.createDataFrame(entries, schema).repartition(3)
    found = np.full((n_users, n_items), np.nan)
    ids: dict[int, str] = {}
    for row in build_user_blocks(users, interactions, block_users, RUN_DATE).collect():
        first, indptr = row["first_user_idx"], np.frombuffer(row["indptr"], np.int64)
        assert row["block_id"] == first // block_users
        ids |= dict(enumerate(row["user_ids"], start=first))
        columns, values = np.frombuffer(row["indices"], np.int32), np.frombuffer(row["ratings"], np.float32)
        splits = np.frombuffer(row["splits"], np.uint8)
        assert ((columns == 3) == (splits == 2)).all()
        # The day ends 24 hours after midnight; an item was taken at noon as many days before as its number.
        expected = np.where(columns == 6, np.nan, 0.5 + columns)
        np.testing.assert_array_equal(np.frombuffer(row["ages"], np.float32), expected.astype(np.float32))
        for place in range(len(indptr) - 1):
            mine = slice(indptr[place], indptr[place + 1])
            assert (np.diff(columns[mine]) > 0).all()
            found[first + place, columns[mine]] = values[mine]
    assert ids == {u: f"u{u}" for u in range(n_users)}
    np.testing.assert_array_equal(found, ratings.astype(np.float32))
