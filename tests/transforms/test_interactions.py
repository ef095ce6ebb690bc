from __future__ import annotations

import datetime
import random
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.sections import FeedbackSettings
from recsys_spark.transforms.interactions import (
    decay_kept,
    gather_pairs,
    scale_ratings,
    weigh_events,
)

RUN_DATE = datetime.date(2026, 11, 22)
WEIGHED = "user_id string, item_id string, value double, event_type string, occurred_at timestamp"


def at(day: int, hour: int = 0) -> datetime.datetime:
    return datetime.datetime(2026, 11, day, hour)


def indexes(spark: SparkSession, n_users: int = 3, n_items: int = 3) -> tuple[DataFrame, DataFrame]:
    users = spark.createDataFrame([(i, f"u{i}") for i in range(n_users)], "user_idx int, user_id string")
    items = spark.createDataFrame([(i, f"i{i}") for i in range(n_items)], "item_idx int, item_id string")
    return users, items


def gathered(
    spark: SparkSession, rows: list[tuple[Any, ...]], kept: DataFrame | None = None, **feedback: Any
) -> dict[tuple[int, int], Any]:
    users, items = indexes(spark)
    pairs = gather_pairs(spark.createDataFrame(rows, WEIGHED), users, items, FeedbackSettings(**feedback), kept)
    return {(row["user_idx"], row["item_idx"]): row for row in pairs.collect()}


TWICE = [
    ("u0", "i0", 2.0, "view", at(1)),
    ("u0", "i0", 5.0, "buy", at(3)),
    ("u0", "i0", 1.0, "view", at(2)),
    ("u1", "i2", 3.0, None, None),
]


@pytest.mark.parametrize(("policy", "value"), [("last", 5.0), ("max", 5.0), ("sum", 8.0), ("mean", 8.0 / 3)])
def test_several_events_of_a_pair_become_one(spark: SparkSession, policy: str, value: float) -> None:
    pairs = gathered(spark, TWICE, duplicates=policy)
    assert set(pairs) == {(0, 0), (1, 2)}
    row = pairs[0, 0]
    assert (row["value"], row["event_count"], row["last_at"]) == (value, 3, at(3))
    assert row["last_at_by_type"] == {"buy": at(3), "view": at(2)}
    assert (pairs[1, 2]["value"], pairs[1, 2]["last_at"], pairs[1, 2]["last_at_by_type"]) == (3.0, None, {})


def test_last_of_equal_times_is_the_largest(spark: SparkSession) -> None:
    rows = [("u0", "i0", value, None, at(1)) for value in (2.0, 4.0, 3.0)]
    assert gathered(spark, rows, duplicates="last")[0, 0]["value"] == 4.0


@pytest.mark.parametrize("policy", ["last", "max", "sum", "mean"])
def test_merging_nights_equals_the_full_history(spark: SparkSession, policy: str) -> None:
    generator = random.Random(policy)
    rows = [
        (
            f"u{generator.randrange(3)}",
            f"i{generator.randrange(3)}",
            generator.randrange(1, 11) / 2,
            generator.choice(["view", "buy"]),
            at(1 + number // 24, number % 24),
        )
        for number in range(60)
    ]
    users, items = indexes(spark)
    feedback = FeedbackSettings(duplicates=policy)
    first = gather_pairs(spark.createDataFrame(rows[:40], WEIGHED), users, items, feedback)
    merged = gathered(spark, rows[40:], kept=first, duplicates=policy)
    full = gathered(spark, rows, duplicates=policy)
    assert merged.keys() == full.keys()
    for pair, row in full.items():
        assert merged[pair]["value"] == pytest.approx(row["value"], abs=1e-9)
        assert merged[pair].asDict() | {"value": 0} == row.asDict() | {"value": 0}


def test_sums_do_not_depend_on_the_order_of_events(spark: SparkSession) -> None:
    rows = [("u0", "i0", value, None, at(1)) for value in [0.1, 1e6 / 3, 0.7, 1e-9, 123456.789] * 20]
    users, items = indexes(spark)
    sums = set()
    for seed, partitions in ((1, 1), (2, 3), (3, 8)):
        random.Random(seed).shuffle(rows)
        events = spark.createDataFrame(rows, WEIGHED).repartition(partitions)
        sums.add(gather_pairs(events, users, items, FeedbackSettings(duplicates="sum")).collect()[0]["value"])
    assert len(sums) == 1


def test_implicit_events_weigh_by_type_and_age(spark: SparkSession) -> None:
    events = spark.createDataFrame(
        [
            ("u", "i", None, "view", at(23), "accepted"),
            ("u", "i", None, "buy", at(21), "accepted"),
            ("u", "i", 3.0, "view", at(23), "accepted"),
            ("u", "i", None, "buy", at(21), "later"),
        ],
        "user_id string, item_id string, rating double, event_type string, occurred_at timestamp, status string",
    )
    feedback = FeedbackSettings(kind="implicit", event_weights={"view": 0.1, "buy": 1.0}, half_life_days=2)
    values = sorted(row["value"] for row in weigh_events(events, feedback, RUN_DATE).collect())
    # The run date ends on the 23rd at 0:00: the first is new, the purchase two days, one half-life, old.
    assert values == pytest.approx([0.1, 0.3, 0.5])


def test_kept_values_age_like_events(spark: SparkSession) -> None:
    kept = spark.createDataFrame([(8.0,)], "value double")
    aged = decay_kept(kept, FeedbackSettings(kind="implicit", half_life_days=2), days=4)
    assert aged.collect()[0]["value"] == 2.0
    assert decay_kept(kept, FeedbackSettings(), days=4) is kept


def test_ratings_are_scaled_and_clipped(spark: SparkSession) -> None:
    pairs = spark.createDataFrame([(value,) for value in (0.0, 1.0, 3.0, 5.0, 9.0)], "value double")
    scaled = [row["rating"] for row in scale_ratings(pairs, (1.0, 5.0), 0.2).collect()]
    assert scaled == pytest.approx([0.2, 0.2, 0.6, 1.0, 1.0])


def test_a_constant_rating_means_one(spark: SparkSession) -> None:
    pairs = spark.createDataFrame([(4.0,), (4.0,)], "value double")
    assert [row["rating"] for row in scale_ratings(pairs, (4.0, 4.0), 0.0).collect()] == [1.0, 1.0]
