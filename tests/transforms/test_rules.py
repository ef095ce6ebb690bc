"""Verdicts of items, users who get lists, and the account of requested users, on literal rows."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.rule_sections import RuleSettings
from recsys_spark.transforms.rules import account_requested, judge_items
from recsys_spark.transforms.user_rules import count_users, ruled_pairs, wanted_users

RUN_DATE = datetime.date(2024, 3, 9)
ITEM = "item_idx int, item_id string, attributes map<string,string>"


def items_of(spark: SparkSession, *attributes: dict[str, str]) -> DataFrame:
    return spark.createDataFrame([(at, f"i{at}", each) for at, each in enumerate(attributes)], ITEM)


def verdicts(frame: DataFrame) -> list[str]:
    return [row["verdict"] for row in frame.orderBy("item_idx").collect()]


@pytest.mark.parametrize(
    ("setting", "value", "verdict"),
    [
        ("valid_from", "2024-03-10", "listed"),
        ("valid_from", "2024-03-10 00:00:00.000001", "unavailable"),
        ("valid_from", "1710028800", "listed"),
        ("valid_from", "soon", "unavailable"),
        ("valid_from", "", "listed"),
        ("valid_from", None, "listed"),
        ("valid_to", "2024-03-10", "unavailable"),
        ("valid_to", "2024-03-10 00:00:00.000001", "listed"),
        ("valid_to", "never", "unavailable"),
        ("valid_to", None, "listed"),
        ("in_stock", " True ", "listed"),
        ("in_stock", "0.5", "listed"),
        ("in_stock", "0", "unavailable"),
        ("in_stock", "-1", "unavailable"),
        ("in_stock", "no", "unavailable"),
        ("in_stock", "nan", "unavailable"),
        ("in_stock", None, "unavailable"),
    ],
)
def test_times_and_stock(spark: SparkSession, setting: str, value: str | None, verdict: str) -> None:
    items = items_of(spark, {} if value is None else {"a": value})
    assert verdicts(judge_items(items, {}, RuleSettings(**{setting: "a"}), RUN_DATE)) == [verdict]


def test_tables_and_categories_deny_and_denied_comes_before_unavailable(spark: SparkSession) -> None:
    items = items_of(spark, {"g": "A|B"}, {"g": "b ; C"}, {"g": "CC"}, {}, {"g": "a"}, {"g": "A"})
    sources = {
        "allow_items": spark.createDataFrame([(f"i{at}",) for at in (0, 1, 2, 3, 4, 4)], "item_id string"),
        "deny_items": spark.createDataFrame([("i4",), ("i4",), (None,)], "item_id string"),
    }
    rules = RuleSettings(deny_categories={"g": ("c",)}, in_stock="g")
    found = verdicts(judge_items(items, sources, rules, RUN_DATE))
    assert found == ["unavailable", "denied", "unavailable", "unavailable", "denied", "denied"]
    allowed = judge_items(items, {}, RuleSettings(allow_categories={"g": ("B ", "cc")}), RUN_DATE)
    assert verdicts(allowed) == ["listed", "listed", "listed", "denied", "denied", "denied"]


def test_factors_are_multiplied_within_bounds(spark: SparkSession) -> None:
    boosts = [{"attribute": "g", "value": value, "factor": factor} for value, factor in (("a", 100), ("B", 0.5))]
    sources = {
        "item_boosts": spark.createDataFrame([("i0", 20.0), ("i0", 3.0), ("i3", 2.0)], "item_id string, factor double")
    }
    items = items_of(spark, {"g": "A"}, {"g": "a,b"}, {"g": "b"}, {})
    frame = judge_items(items, sources, RuleSettings(boosts=boosts), RUN_DATE)
    assert [row["factor"] for row in frame.orderBy("item_idx").collect()] == [1000.0, 50.0, 0.5, 2.0]


USERS = [
    (0, "u0", {"n": "3"}),
    (1, "u1", {"n": "0"}),
    (2, "u2", {"n": "-2"}),
    (3, "u3", {"n": "x"}),
    (4, "u4", {"n": "99"}),
]


def users_of(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(USERS, "user_idx int, user_id string, attributes map<string,string>")


def pairs_of(spark: SparkSession, *rows: tuple[Any, ...]) -> DataFrame:
    kinds = "user_idx int, item_idx int, last_at timestamp, last_at_by_type map<string,timestamp>"
    return spark.createDataFrame(list(rows), kinds)


@pytest.mark.parametrize(
    ("active_days", "requested", "lengths"),
    [
        (None, None, [3, 0, 5, 5, 5]),
        (None, ["u1", "u3", "nobody"], [-1, 0, -1, 5, -1]),
        (2.0, None, [3, -1, 5, -1, -1]),
        (2.0, ["u3"], [3, -1, 5, 5, -1]),
    ],
)
def test_who_gets_a_list_and_how_long(
    spark: SparkSession, active_days: float | None, requested: list[str] | None, lengths: list[int]
) -> None:
    """Two days before the end of the run date is the start of the day before."""
    at = [datetime.datetime(2024, 3, 8), datetime.datetime(2024, 3, 7, 23, 59, 59), datetime.datetime(2024, 3, 9, 12)]
    interactions = pairs_of(spark, *[(user, 0, moment, {}) for user, moment in enumerate(at)], (3, 0, None, {}))
    named = [] if requested is None else [(each,) for each in requested]
    sources = {} if requested is None else {"requested_users": spark.createDataFrame(named, "user_id string")}
    rules = RuleSettings(list_length="n", active_days=active_days)
    wanted = wanted_users(users_of(spark), interactions, sources, rules, 5, RUN_DATE)
    assert [row["list_length"] for row in wanted.orderBy("user_idx").collect()] == lengths
    counted = count_users(wanted, 5).collect()[0]
    assert tuple(counted) == (sum(length >= 0 for length in lengths), 2, 1)


def test_what_is_bought_comes_back_after_its_days(spark: SparkSession) -> None:
    def ago(days: float) -> datetime.datetime:
        return datetime.datetime(2024, 3, 10) - datetime.timedelta(days=days)

    of_types = [{"buy": ago(29.9)}, {"buy": ago(30)}, {"buy": ago(31), "view": ago(40)}, {}, {"wish": ago(0.1)}]
    of_types.append({"buy": ago(90), "wish": ago(1)})
    interactions = pairs_of(
        spark, *[(0, item, ago(1), types) for item, types in enumerate(of_types)], (0, 9, ago(1), {})
    )
    judged = spark.createDataFrame(
        [(item, "listed") for item in range(6)] + [(9, "denied")], "item_idx int, verdict string"
    )
    rules = RuleSettings(seen_days={"buy": 30.0, "wish": 0.0})
    found = ruled_pairs(interactions, {}, judged, rules, RUN_DATE).collect()
    assert sorted(row["item_idx"] for row in found) == [0, 2, 3]  # a view is for good, and what has no type
    without = ruled_pairs(interactions, {}, judged, RuleSettings(in_stock="x"), RUN_DATE).collect()
    assert sorted(row["item_idx"] for row in without) == [0, 1, 2, 3, 4, 5]
    assert ruled_pairs(None, {}, judged, rules, RUN_DATE).count() == 0


def test_each_requested_id_has_one_outcome(spark: SparkSession) -> None:
    requested = [("u0",), ("u0",), ("u1",), ("u2",), ("u3",), ("u4",), ("nobody",), (" ",), (None,)]
    lengths = spark.createDataFrame([(at, 0 if at == 1 else 5) for at in range(5)], "user_idx int, list_length int")
    lists = [("u0", "embedding", ["i1"]), ("u1", "embedding", []), ("u2", "popularity", ["i1"]), ("u3", "ease", [])]
    found = account_requested(
        spark.createDataFrame(requested, "user_id string"),
        users_of(spark),
        lengths,
        spark.createDataFrame(lists, "user_id string, tier string, item_ids array<string>"),
    ).collect()
    assert len(found) == 8
    assert {(row["user_id"], row["outcome"], row["reason"]) for row in found} == {
        ("u0", "scored", None),
        ("u1", "refused", "no_list_wanted"),
        ("u2", "fell_back", None),
        ("u3", "refused", "nothing_left"),
        ("u4", "refused", "requested_late"),
        ("nobody", "refused", "unknown_user"),
        (" ", "refused", "missing_id"),
        (None, "refused", "missing_id"),
    }
