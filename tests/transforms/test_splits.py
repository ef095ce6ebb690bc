from __future__ import annotations

import datetime
import random
from typing import Any, Literal

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.sections import EvaluateSettings
from recsys_spark.transforms.splits import assign_splits, hold_back_test, take_splits

Splits = dict[tuple[int, int], str]


def at(day: int, hour: int = 0) -> datetime.datetime:
    return datetime.datetime(2026, 11, day, hour)


def indexes(spark: SparkSession, shift: int = 0, count: int = 210) -> tuple[DataFrame, DataFrame]:
    """A user and an item index: the position n has the id (n + shift) % count, with zeros before it."""

    def index(name: str) -> DataFrame:
        rows = [(position, f"{(position + shift) % count:04}") for position in range(count)]
        return spark.createDataFrame(rows, f"{name}_idx int, {name}_id string")

    return index("user"), index("item")


def assigned(frame: DataFrame, evaluate: EvaluateSettings, seed: int = 0) -> DataFrame:
    return assign_splits(frame, *indexes(frame.sparkSession), evaluate, seed)


def splits_of(frame: DataFrame, seed: int = 0, **evaluate: Any) -> Splits:
    return splits_in(assigned(frame, EvaluateSettings(**evaluate), seed))


def splits_in(pairs: DataFrame) -> Splits:
    return {(row["user_idx"], row["item_idx"]): row["split"] for row in pairs.collect()}


def share_of(found: Splits, split: str) -> float:
    return sum(each == split for each in found.values()) / len(found)


def pairs_frame(spark: SparkSession, rows: list[tuple[int, int, Any]]) -> DataFrame:
    full = [(user, item, 1.0, 1.0, 1, last_at, {}) for user, item, last_at in rows]
    return spark.createDataFrame(
        full,
        "user_idx int, item_idx int, rating float, value double, event_count long, last_at timestamp, "
        "last_at_by_type map<string,timestamp>",
    )


def test_last_items_by_time_are_held_out(spark: SparkSession) -> None:
    rows = [(0, 0, at(1)), (0, 1, at(3)), (0, 2, at(2)), (0, 3, None), (1, 5, at(1)), (1, 6, at(2)), (2, 7, at(1))]
    assert splits_of(pairs_frame(spark, rows)) == {
        (0, 1): "test", (0, 2): "validation", (0, 0): "train", (0, 3): "train",
        (1, 6): "test", (1, 5): "train", (2, 7): "train",
    }  # fmt: skip


@pytest.mark.parametrize(("items", "held_out"), [(1, (0, 0)), (2, (1, 0)), (3, (1, 1)), (7, (1, 1)), (9, (2, 2))])
def test_a_share_of_each_users_newest_items_is_held_out(
    spark: SparkSession, items: int, held_out: tuple[int, int]
) -> None:
    frame = pairs_frame(spark, [(0, item, at(1 + item)) for item in range(items)])
    found = assigned(frame, EvaluateSettings(split="newest", share=0.25)).orderBy("last_at").collect()
    test, validation = held_out
    expected = ["train"] * (items - test - validation) + ["validation"] * validation + ["test"] * test
    assert [row["split"] for row in found] == expected


@pytest.mark.parametrize("split", ["last", "newest"])
def test_no_train_pair_is_later_than_the_held_out_ones(spark: SparkSession, split: Literal["last", "newest"]) -> None:
    generator = random.Random(3)
    rows = [
        (user, item, at(1 + generator.randrange(9))) for user in range(20) for item in range(generator.randrange(1, 9))
    ]
    found = splits_of(pairs_frame(spark, rows), split=split, share=0.3)
    assert set(found.values()) == {"train", "validation", "test"}
    for user in range(20):
        days: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
        for user_idx, item, last_at in rows:
            if user_idx == user:
                days[found[user, item]].append(last_at)
        for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
            assert not (days[earlier] and days[later]) or max(days[earlier]) <= min(days[later])


def test_random_split_is_a_function_of_pair_and_seed(spark: SparkSession) -> None:
    pairs = pairs_frame(spark, [(user, item, None) for user in range(40) for item in range(50)])
    first = splits_of(pairs, 1, split="random", share=0.2)
    assert first == splits_of(pairs.repartition(7), 1, split="random", share=0.2)
    assert first != splits_of(pairs, 2, split="random", share=0.2)
    shares = [sum(found == name for found in first.values()) / len(first) for name in ("test", "validation")]
    assert shares == pytest.approx([0.2, 0.2], abs=0.03)


def a_world(seed: int, users: int = 20, items: int = 12) -> list[tuple[int, int, Any]]:
    """Pairs at one of two hundred minutes, some of which are shared by many; one in twenty has no time."""
    generator = random.Random(seed)
    start = at(3)
    return [
        (
            user,
            item,
            start + datetime.timedelta(seconds=generator.randrange(12_000)) if generator.random() < 0.95 else None,
        )
        for user in range(users)
        for item in range(items)
        if generator.random() < 0.7
    ]


@pytest.mark.parametrize("seed", range(4))
def test_a_global_cut_holds_out_the_newest_minutes_that_have_the_share(spark: SparkSession, seed: int) -> None:
    rows, share = a_world(seed), (0.1, 0.23, 0.3, 0.45)[seed]
    minutes = sorted((int((moment - at(1)).total_seconds() // 60) for _, _, moment in rows if moment), reverse=True)

    def cut(wanted: float) -> int:
        taken: list[int] = []
        for minute in sorted(set(minutes), reverse=True)[:-1]:  # the oldest one trains
            if sum(minutes.count(each) for each in taken) >= wanted * len(minutes):
                break
            taken.append(minute)
        return taken[-1]

    tested, validated = cut(share), cut(2 * share)
    expected = {}
    for user, item, moment in rows:
        minute = -1 if moment is None else int((moment - at(1)).total_seconds() // 60)
        expected[user, item] = "test" if minute >= tested else "validation" if minute >= validated else "train"
    frame = pairs_frame(spark, rows)
    assert splits_of(frame, split="time", share=share) == expected
    assert splits_of(frame.repartition(7), split="time", share=share) == expected


def test_after_a_global_cut_nothing_that_is_trained_on_is_later_than_what_tests(spark: SparkSession) -> None:
    rows = a_world(9)
    moments: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for (user, item), split in splits_of(pairs_frame(spark, rows), split="time", share=0.2).items():
        moments[split] += [moment for u, i, moment in rows if (u, i) == (user, item) and moment is not None]
    assert max(moments["train"]) < min(moments["validation"])
    assert max(moments["validation"]) < min(moments["test"])


@pytest.mark.parametrize("moments", [[at(1), at(1), at(1)], [None, None], [at(2)]])
def test_pairs_of_one_minute_or_of_none_all_train(spark: SparkSession, moments: list[Any]) -> None:
    rows = [(user, 0, moment) for user, moment in enumerate(moments)]
    assert set(splits_of(pairs_frame(spark, rows), split="time").values()) == {"train"}


def test_folds_test_every_pair_once_and_validate_a_share_of_the_rest(spark: SparkSession) -> None:
    frame = pairs_frame(spark, [(user, item, None) for user in range(60) for item in range(50)])
    folds = [splits_of(frame, seed=1, split="fold", folds=4, fold=fold, share=0.2) for fold in range(4)]
    tested = [{pair for pair, split in found.items() if split == "test"} for found in folds]
    assert sum(map(len, tested)) == 3_000
    assert set.union(*tested) == set(folds[0])
    for found in folds:
        assert share_of(found, "test") == pytest.approx(0.25, abs=0.03)
        assert share_of(found, "validation") == pytest.approx(0.75 * 0.2, abs=0.03)
    again = splits_of(frame.repartition(5), seed=1, split="fold", folds=4, fold=2, share=0.2)
    assert again == folds[2]
    assert splits_of(frame, seed=2, split="fold", folds=4, fold=2, share=0.2) != again


@pytest.mark.parametrize(("split", "side"), [("users", 0), ("items", 1)])
def test_users_or_items_are_held_out_with_all_their_pairs(
    spark: SparkSession, split: Literal["users", "items"], side: int
) -> None:
    frame = pairs_frame(spark, [(user, item, None) for user in range(200) for item in range(200) if user != item])
    found = splits_of(frame, seed=1, split=split, share=0.2)
    splits_by_entity: dict[int, set[str]] = {}
    for pair, name in found.items():
        splits_by_entity.setdefault(pair[side], set()).add(name)
    assert all(len(names) == 1 for names in splits_by_entity.values())
    for name in ("test", "validation"):
        assert share_of(found, name) == pytest.approx(0.2, abs=0.08)
    other = splits_of(frame.repartition(3), seed=1, split=split, share=0.2)
    assert other == found
    assert splits_of(frame, seed=2, split=split, share=0.2) != found


def test_who_is_held_out_stays_so_when_pairs_are_added(spark: SparkSession) -> None:
    rows = [(user, item, None) for user in range(30) for item in range(10)]
    for split in ("random", "fold", "users", "items"):
        before = splits_of(pairs_frame(spark, rows), split=split, share=0.2)
        after = splits_of(
            pairs_frame(spark, [*rows, *((user, 10, None) for user in range(35))]), split=split, share=0.2
        )
        assert {pair: after[pair] for pair in before} == before


@pytest.mark.parametrize("split", ["last", "newest", "random", "fold", "users", "items"])
def test_what_is_held_out_follows_ids_wherever_they_are(spark: SparkSession, split: str) -> None:
    """Later nights number ids in another order than a tuning, which starts from none. Many pairs have one moment."""
    generator, count, shift = random.Random(1), 30, 5
    rows = [
        (user, item, at(1 + generator.randrange(3)))
        for user in range(count)
        for item in range(count)
        if generator.random() < 0.5
    ]
    moved = [((user - shift) % count, (item - shift) % count, moment) for user, item, moment in rows]
    evaluate = EvaluateSettings.model_validate({"split": split, "share": 0.2})
    found = splits_in(assign_splits(pairs_frame(spark, rows), *indexes(spark, count=count), evaluate, 4))
    elsewhere = splits_in(assign_splits(pairs_frame(spark, moved), *indexes(spark, shift, count), evaluate, 4))
    assert {((user + shift) % count, (item + shift) % count): name for (user, item), name in elsewhere.items()} == found
    assert len(set(found.values())) == 3


SPLIT = "user_idx int, item_idx int, rating float, value double, event_count long, last_at timestamp, " + (
    "last_at_by_type map<string,timestamp>, split string"
)


def split_rows(spark: SparkSession, rows: list[tuple[int, int, int, str]]) -> DataFrame:
    """Rows of user, item, day, split."""
    return spark.createDataFrame(
        [(user, item, 0.5, 3.0, 1, at(day), {}, split) for user, item, day, split in rows], SPLIT
    )


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
    held_back = hold_back_test(split_rows(spark, rows), *indexes(spark), EvaluateSettings(split="last"), seed=0)
    assert splits_in(held_back) == {
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


@pytest.mark.parametrize(("split", "folds"), [("random", 5), ("fold", 2)])
def test_a_random_share_validates_anew(spark: SparkSession, split: Literal["random", "fold"], folds: int) -> None:
    evaluate, both = EvaluateSettings(split=split, share=0.2, folds=folds), indexes(spark)
    everything = split_rows(spark, [(user, item, 1, "") for user in range(20) for item in range(50)])
    night = assign_splits(everything.drop("split"), *both, evaluate, seed=5)
    before, after = splits_in(night), splits_in(hold_back_test(night, *both, evaluate, seed=5))
    assert after.keys() == {pair for pair, name in before.items() if name != "test"}
    assert {pair for pair, name in after.items() if name == "test"} == {
        pair for pair, name in before.items() if name == "validation"
    }
    validating = sum(name == "validation" for name in after.values())
    assert validating / sum(name == "train" for name in before.values()) == pytest.approx(0.2, abs=0.04)


def test_a_sample_takes_the_splits_of_all(spark: SparkSession) -> None:
    """Positions differ: u1 of all is the first of the sample."""
    items = spark.createDataFrame([(item, f"i{item}") for item in range(3)], "item_idx int, item_id string")
    sampled_users = spark.createDataFrame([(0, "u1")], "user_idx int, user_id string")
    of_all = spark.createDataFrame(
        [("u1", "i0", "test"), ("u1", "i1", "validation"), ("u0", "i1", "train")],
        "user_id string, item_id string, split string",
    )
    pairs = split_rows(spark, [(0, 0, 1, "train"), (0, 1, 2, "train"), (0, 2, 3, "train")])
    assert splits_in(take_splits(pairs, sampled_users, items, of_all)) == {(0, 0): "test", (0, 1): "validation"}
