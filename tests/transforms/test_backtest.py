from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.blockwise.files import distribute_array, save_array
from recsys_spark.transforms.backtest import add_popular, find_new_pairs, gather_items, position_lists, seen_items

PAIRS = "user_idx int, item_idx int, event_count long, last_at timestamp"
LISTS = "user_idx int, tier string, item_idxs array<int>, relevant_idxs array<int>"


def at(day: int) -> datetime.datetime:
    return datetime.datetime(2026, 11, day)


def rows_of(frame: DataFrame) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.collect())


@pytest.mark.parametrize(
    ("with_repeats", "expected"), [(False, [(0, 9), (7, 1)]), (True, [(0, 2), (0, 3), (0, 9), (7, 1)])]
)
def test_new_pairs(spark: SparkSession, with_repeats: bool, expected: list[tuple[int, int]]) -> None:
    """Of user 0 item 1 is as it was, 2 has a newer event, 3 one more event of an older time, 9 is new; so is user 7."""
    earlier = spark.createDataFrame([(0, 1, 1, at(1)), (0, 2, 2, at(1)), (0, 3, 1, at(2)), (5, 5, 1, at(1))], PAIRS)
    rows = [(0, 1, 1, at(1)), (0, 2, 2, at(4)), (0, 3, 2, at(2)), (0, 9, 1, at(1)), (7, 1, 1, at(4))]
    assert rows_of(find_new_pairs(spark.createDataFrame(rows, PAIRS), earlier, with_repeats)) == expected


def test_new_pairs_without_times(spark: SparkSession) -> None:
    earlier = spark.createDataFrame([(0, 1, 1, None), (0, 2, 1, None)], PAIRS)
    tonight = spark.createDataFrame([(0, 1, 1, None), (0, 2, 2, None), (0, 3, 1, None)], PAIRS)
    assert rows_of(find_new_pairs(tonight, earlier, with_repeats=False)) == [(0, 3)]
    assert rows_of(find_new_pairs(tonight, earlier, with_repeats=True)) == [(0, 2), (0, 3)]


def test_items_of_a_user_ascend(spark: SparkSession) -> None:
    pairs = spark.createDataFrame([(1, 9), (0, 4), (1, 2)], "user_idx int, item_idx int")
    assert rows_of(gather_items(pairs, "seen_idxs")) == [(0, [4]), (1, [2, 9])]


def test_lists_by_position(spark: SparkSession) -> None:
    """Best first; an empty list stays, those of users without anything new go, and `d` has none."""
    lists = [("a", "embedding", ["z", "x"]), ("b", "popularity", []), ("c", "embedding", ["y"])]
    recommendations = spark.createDataFrame(lists, "user_id string, tier string, item_ids array<string>")
    users = spark.createDataFrame(list(enumerate("abcd")), "user_idx int, user_id string")
    items = spark.createDataFrame(list(enumerate("xyz")), "item_idx int, item_id string")
    relevant = spark.createDataFrame([(0, [1, 2]), (1, [0]), (3, [0])], "user_idx int, relevant_idxs array<int>")
    found = position_lists(recommendations, relevant, users, items)
    assert rows_of(found) == [(0, "embedding", [2, 0], [1, 2]), (1, "popularity", [], [0])]


def test_popular_items_that_a_user_has_not_seen(spark: SparkSession, tmp_path: Path) -> None:
    """In the order 3, 1, 0, 2; user 0 has seen 1 and 3, user 1 all but one, user 2 nothing."""
    lists = spark.createDataFrame([(user, "embedding", [user], [9]) for user in range(3)], LISTS)
    earlier = spark.createDataFrame([(0, 3), (0, 1), (1, 0), (1, 1), (1, 3), (8, 2)], "user_idx int, item_idx int")
    ranked = distribute_array(spark, save_array(tmp_path / "ranked.npy", np.array([3, 1, 0, 2], np.int32)))
    seen = seen_items(earlier, lists)
    assert rows_of(seen) == [(0, [1, 3]), (1, [0, 1, 3])]
    found = rows_of(add_popular(lists, seen, ranked, 2))
    assert [row[:4] for row in found] == [(user, "embedding", [user], [9]) for user in range(3)]
    assert [row[4] for row in found] == [[0, 2], [2], [3, 1]]
    assert [row[4] for row in rows_of(add_popular(lists, None, ranked, 2))] == [[3, 1]] * 3
