from __future__ import annotations

import datetime
import random
from typing import Any, Literal

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.sections import EvaluateSettings, FeedbackSettings
from recsys_spark.transforms.interactions import (
    assign_splits,
    decay_kept,
    gather_pairs,
    hold_back_test,
    scale_ratings,
    take_splits,
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


def pairs_frame(spark: SparkSession, rows: list[tuple[int, int, Any]]) -> DataFrame:
    full = [(user, item, 1.0, 1.0, 1, last_at, {}) for user, item, last_at in rows]
    return spark.createDataFrame(
        full,
        "user_idx int, item_idx int, rating float, value double, event_count long, last_at timestamp, "
        "last_at_by_type map<string,timestamp>",
    )


def test_last_items_by_time_are_held_out(spark: SparkSession) -> None:
    rows = [(0, 0, at(1)), (0, 1, at(3)), (0, 2, at(2)), (0, 3, None), (1, 5, at(1)), (1, 6, at(2)), (2, 7, at(1))]
    splits = {
        (row["user_idx"], row["item_idx"]): row["split"]
        for row in assign_splits(pairs_frame(spark, rows), EvaluateSettings(), 0).collect()
    }
    assert splits == {
        (0, 1): "test", (0, 2): "validation", (0, 0): "train", (0, 3): "train",
        (1, 6): "test", (1, 5): "train", (2, 7): "train",
    }  # fmt: skip


@pytest.mark.parametrize(("items", "held_out"), [(1, (0, 0)), (2, (1, 0)), (3, (1, 1)), (7, (1, 1)), (9, (2, 2))])
def test_a_share_of_each_users_newest_items_is_held_out(
    spark: SparkSession, items: int, held_out: tuple[int, int]
) -> None:
    frame = pairs_frame(spark, [(0, item, at(1 + item)) for item in range(items)])
    found = assign_splits(frame, EvaluateSettings(split="newest", share=0.25), 0).orderBy("last_at").collect()
    test, validation = held_out
    expected = ["train"] * (items - test - validation) + ["validation"] * validation + ["test"] * test
    assert [row["split"] for row in found] == expected


@pytest.mark.parametrize("split", ["last", "newest"])
def test_no_train_pair_is_later_than_the_held_out_ones(spark: SparkSession, split: Literal["last", "newest"]) -> None:
    generator = random.Random(3)
    rows = [
        (user, item, at(1 + generator.randrange(9))) for user in range(20) for item in range(generator.randrange(1, 9))
    ]
    found = assign_splits(pairs_frame(spark, rows), EvaluateSettings(split=split, share=0.3), 0).collect()
    order = {"train": 0, "validation": 1, "test": 2}
    for user in range(20):
        mine = sorted((row["last_at"], order[row["split"]]) for row in found if row["user_idx"] == user)
        newest_of = {split: max((at_ for at_, s in mine if s == split), default=at(1)) for split in (0, 1, 2)}
        assert newest_of[0] <= newest_of[1] or 1 not in [s for _, s in mine]
        assert newest_of[1] <= newest_of[2] or 2 not in [s for _, s in mine]


def test_random_split_is_a_function_of_pair_and_seed(spark: SparkSession) -> None:
    pairs = pairs_frame(spark, [(user, item, None) for user in range(40) for item in range(50)])
    evaluate = EvaluateSettings(split="random", share=0.2)

    def split(frame: DataFrame, seed: int) -> dict[tuple[int, int], str]:
        return {
            (row["user_idx"], row["item_idx"]): row["split"] for row in assign_splits(frame, evaluate, seed).collect()
        }

    first = split(pairs, 1)
    assert first == split(pairs.repartition(7), 1)
    assert first != split(pairs, 2)
    shares = [sum(found == name for found in first.values()) / len(first) for name in ("test", "validation")]
    assert shares == pytest.approx([0.2, 0.2], abs=0.03)


SPLIT = "user_idx int, item_idx int, rating float, value double, event_count long, last_at timestamp, " + (
    "last_at_by_type map<string,timestamp>, split string"
)


def split_rows(spark: SparkSession, rows: list[tuple[int, int, int, str]]) -> DataFrame:
    """Rows of user, item, day, split."""
    return spark.createDataFrame(
        [(user, item, 0.5, 3.0, 1, at(day), {}, split) for user, item, day, split in rows], SPLIT
    )


def splits_of(pairs: DataFrame) -> dict[tuple[int, int], str]:
    return {(row["user_idx"], row["item_idx"]): row["split"] for row in pairs.collect()}


def test_tuning_is_measured_on_what_validated_and_knows_no_test_pair(spark: SparkSession) -> None:
    rows = [
        *[(0, item, item + 1, "train") for item in range(3)],
        (0, 3, 4, "validation"),
        (0, 4, 5, "test"),
        (1, 0, 1, "train"),
        (1, 1, 2, "validation"),
        (1, 2, 3, "test"),
        (2, 0, 1, "train"),
        (2, 1, 2, "test"),
        (3, 0, 1, "train"),
    ]
    held_back = hold_back_test(split_rows(spark, rows), EvaluateSettings(split="last"), seed=0)
    assert splits_of(held_back) == {
        (0, 0): "train",
        (0, 1): "train",
        (0, 2): "validation",
        (0, 3): "test",
        (1, 0): "train",
        (1, 1): "test",
        (2, 0): "train",
        (3, 0): "train",
    }
    assert held_back.columns == split_rows(spark, rows).columns


def test_a_random_share_validates_anew(spark: SparkSession) -> None:
    evaluate = EvaluateSettings(split="random", share=0.2)
    everything = split_rows(spark, [(user, item, 1, "") for user in range(20) for item in range(50)])
    night = assign_splits(everything.drop("split"), evaluate, seed=5)
    before, after = splits_of(night), splits_of(hold_back_test(night, evaluate, seed=5))
    assert after.keys() == {pair for pair, split in before.items() if split != "test"}
    assert {pair for pair, split in after.items() if split == "test"} == {
        pair for pair, split in before.items() if split == "validation"
    }
    validating = sum(split == "validation" for split in after.values())
    assert validating / sum(split == "train" for split in before.values()) == pytest.approx(0.2, abs=0.04)


def test_a_sample_takes_the_splits_of_all(spark: SparkSession) -> None:
    """Positions differ: u1 of all is the first of the sample."""
    _, items = indexes(spark)
    sampled_users = spark.createDataFrame([(0, "u1")], "user_idx int, user_id string")
    of_all = spark.createDataFrame(
        [("u1", "i0", "test"), ("u1", "i1", "validation"), ("u0", "i1", "train")],
        "user_id string, item_id string, split string",
    )
    pairs = split_rows(spark, [(0, 0, 1, "train"), (0, 1, 2, "train"), (0, 2, 3, "train")])
    assert splits_of(take_splits(pairs, sampled_users, items, of_all)) == {(0, 0): "test", (0, 1): "validation"}
