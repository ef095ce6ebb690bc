from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from recsys_spark.audit import count_verdicts, require_few_quarantined, require_passed
from recsys_spark.auditing import ndcg_drop
from recsys_spark.config import Settings
from recsys_spark.errors import AuditError
from recsys_spark.list_checks import audit_lists, count_lists, free_items, mean_overlap, share_of_top_items
from recsys_spark.sections import AuditSettings
from recsys_spark.tables import EVENTS, INTERACTIONS, QUARANTINE, RECOMMENDATIONS, USERS

LISTS = StructType(RECOMMENDATIONS.schema.fields[:4])  # without reasons, which the audit does not read
GOOD: list[tuple[Any, ...]] = [
    ("ann", ["a", "b"], [0.9, 0.5], "embedding"),
    ("bob", ["c", "a"], [0.4, 0.4], "embedding"),
    ("cy", ["b"], [-3.0], "popularity"),
    ("di", [], [], "embedding"),
]
FREE = {"ann": 5, "bob": 2, "cy": 1, "di": 0}


def failed(
    spark: SparkSession, rows: list[tuple[Any, ...]], free: dict[str, int] | None = None, **settings: float
) -> list[str]:
    """The failed checks of lists of 2 for four users."""
    lists = spark.createDataFrame(rows, LISTS)
    possible = spark.createDataFrame(list((free or FREE).items()), "user_id string, free bigint")
    checks = audit_lists(lists, possible, 4, 2, AuditSettings(**settings))
    return [str(check) for check in checks if not check.passed]


def test_lists_as_full_as_can_be_pass_the_strictest_settings(spark: SparkSession) -> None:
    assert failed(spark, GOOD, min_user_coverage=1.0, max_underfilled_share=0.0) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (("di", ["a", "a"], [0.9, 0.5], "embedding"), ["lists with an item twice is 1, must be 0"]),
        (("di", ["a"], [float("nan")], "embedding"), ["lists with scores that are no numbers is 1, must be 0"]),
        (("di", ["a"], [float("-inf")], "embedding"), ["lists with scores that are no numbers is 1, must be 0"]),
        (("di", ["a", "b"], [0.1, 0.2], "embedding"), ["lists not ordered by score is 1, must be 0"]),
        (("di", ["a", "b"], [0.1], "embedding"), ["lists without a score an item is 1, must be 0"]),
        (("cy", ["a"], [0.1], "embedding"), ["distinct users is 3, must be 4"]),
    ],
)
def test_a_bad_list_is_found(spark: SparkSession, row: tuple[Any, ...], expected: list[str]) -> None:
    found = failed(spark, [*GOOD[:3], row])
    assert [check for check in found if "not ordered" not in check or "not ordered" in expected[0]] == expected


def test_the_order_of_lists_that_are_reranked_is_not_checked(spark: SparkSession) -> None:
    rows = [*GOOD[:3], ("di", ["a", "b"], [0.1, 0.2], "embedding")]
    lists = spark.createDataFrame(rows, LISTS)
    possible = spark.createDataFrame(list(FREE.items()), "user_id string, free bigint")
    checks, fewer = (audit_lists(lists, possible, 4, 2, AuditSettings(), is_reranked) for is_reranked in (False, True))
    assert [check.name for check in checks if check not in fewer] == ["lists not ordered by score"]
    assert all(check.passed for check in fewer)
    assert set(fewer) < set(checks)


def test_scores_that_are_all_the_same_are_found(spark: SparkSession) -> None:
    """One of the two lists with several items, bob's; the list of one item has nothing to tell apart."""
    assert failed(spark, GOOD, max_constant_share=0.5) == []
    assert failed(spark, GOOD, max_constant_share=0.4) == [
        "share of lists whose scores are all the same is 0.5, must be at most 0.4"
    ]


def test_how_many_places_the_most_listed_items_take(spark: SparkSession) -> None:
    """a twice, b twice, c once: of 100 items one is the top hundredth, of 101 two are."""
    lists = spark.createDataFrame(GOOD, LISTS)
    assert share_of_top_items(lists, 100) == pytest.approx(2 / 5)
    assert share_of_top_items(lists, 101) == pytest.approx(4 / 5)
    assert share_of_top_items(lists, 3) == pytest.approx(2 / 5)
    assert share_of_top_items(lists.where("user_id = 'di'"), 3) == 0.0


def test_overlap_is_of_users_who_have_both_lists(spark: SparkSession) -> None:
    kind = "user_id string, item_ids array<string>"
    today = spark.createDataFrame([("u", ["a", "b", "c", "d"]), ("v", ["a"]), ("w", []), ("new", ["a"])], kind)
    before = spark.createDataFrame([("u", ["d", "x"]), ("v", ["a", "b"]), ("w", ["a"]), ("gone", ["a"])], kind)
    assert mean_overlap(today, before) == pytest.approx((1 / 4 + 1) / 2)
    assert mean_overlap(today, before.where("user_id = 'gone'")) is None


def test_short_lists_are_counted_with_what_they_lack(spark: SparkSession) -> None:
    rows = [("u", "ease", None), ("v", "ease", {"seen": 3, "cold": 2}), ("w", "popularity", {"seen": 1})]
    lists = spark.createDataFrame(rows, "user_id string, tier string, left_out map<string,int>")
    assert count_lists(lists) == {
        "tiers": {"ease": 2, "popularity": 1}, "short_lists": 2, "left_out": {"cold": 2, "seen": 4}
    }  # fmt: skip


def test_missing_and_surplus_lists_are_found(spark: SparkSession) -> None:
    assert failed(spark, GOOD[:3]) == ["lists is 3, must be 4", "distinct users is 3, must be 4"]
    assert failed(spark, [*GOOD, GOOD[0]]) == ["lists is 5, must be 4"]


def test_empty_lists_count_for_users_who_could_have_items(spark: SparkSession) -> None:
    free = {**FREE, "di": 1}
    assert failed(spark, GOOD, free, min_user_coverage=0.75) == []
    assert failed(spark, GOOD, free, min_user_coverage=0.76) == [
        "share of users with items is 0.75, must be at least 0.76"
    ]
    assert failed(spark, GOOD, free, min_user_coverage=0, max_underfilled_share=0.2) == [
        "share of lists shorter than they could be is 0.25, must be at most 0.2"
    ]


def test_nobody_needs_a_list_when_everything_is_seen(spark: SparkSession) -> None:
    rows = [(user, [], [], "embedding") for user in FREE]
    assert failed(spark, rows, dict.fromkeys(FREE, 0), min_user_coverage=1, max_underfilled_share=0) == []


def test_free_items_are_the_candidates_a_user_has_not_had(spark: SparkSession) -> None:
    pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]
    users = spark.createDataFrame([(idx, name, {}) for idx, name in enumerate(FREE)], USERS.schema)
    interactions = spark.createDataFrame(
        [(user, item, 1.0, 1.0, 1, None, {}, "train") for user, item in [*pairs, (2, 3)]], INTERACTIONS.schema
    )

    def free(items: list[int], exclude_seen: bool) -> dict[str, int]:
        candidates = spark.createDataFrame([(item,) for item in items], "item_idx int")
        frame = free_items(users, interactions, candidates, exclude_seen)
        return {row["user_id"]: row["free"] for row in frame.collect()}

    assert free([0, 1, 2, 3], True) == {"ann": 2, "bob": 2, "cy": 0, "di": 4}
    assert free([0, 1, 2], True) == {"ann": 1, "bob": 1, "cy": 0, "di": 3}, "item 3 is no candidate"
    assert free([0, 1, 2, 3, 9], True)["cy"] == 1, "a candidate that nobody has"
    assert free([0, 1, 2, 3], False) == dict.fromkeys(FREE, 4)


def test_a_failed_check_is_refused_with_where_the_run_lies(spark: SparkSession) -> None:
    possible = spark.createDataFrame(list(FREE.items()), "user_id string, free bigint")
    good, bad = (
        audit_lists(spark.createDataFrame(rows, LISTS), possible, 4, 2, AuditSettings()) for rows in (GOOD, GOOD[:2])
    )
    assert require_passed(good, "/root/run")["checks"][0] == {
        "name": "lists", "value": 4, "limit": "4", "passed": True
    }  # fmt: skip
    with pytest.raises(AuditError, match=r"lists is 2, must be 4; .*The refused run lies in /root/run") as failure:
        require_passed(bad, "/root/run")
    assert failure.value.exit_code == 3
    forced = require_passed(bad, "/root/run", "two of the users have left")
    assert forced["forced"] == "two of the users have left"
    assert forced["failed"][0] == "lists is 2, must be 4"
    assert "forced" not in require_passed(good, "/root/run", "for nothing")


DROP = "drop of the hold-out's NDCG@10 since the run before"


class Evaluated:
    """The facts of the step `evaluate` of a run and of the one before."""

    def __init__(self, now: dict[int, float], earlier: dict[int, float], users: int = 9) -> None:
        self._facts = [
            {"metrics": [{"model": "embedding", "metric": "ndcg", "k": k, "value": value, "users": users}]}
            if (k := next(iter(each), 0)) and (value := each[k]) is not None
            else {}
            for each in (now, earlier)
        ]

    def step_details(self, step: str) -> dict[str, Any]:
        return self._facts[0]

    def parent_details(self, step: str) -> dict[str, Any]:
        return self._facts[1]


@pytest.mark.parametrize(
    ("now", "earlier", "most", "expected"),
    [
        (
            {10: 0.09},
            {10: 0.1},
            0.05,
            "drop of the hold-out's NDCG@10 since the run before is 0.1, must be at most 0.05",
        ),
        ({10: 0.09}, {10: 0.1}, 0.1001, None),
        ({10: 0.2}, {10: 0.1}, 0.0, None),
        ({10: 0.0}, {10: 0.1}, None, None),
        ({10: 0.0}, {5: 0.1}, 0.0, None),
        ({10: 0.0}, {}, 0.0, None),
    ],
)
def test_a_worse_hold_out_is_found(
    now: dict[int, float], earlier: dict[int, float], most: float | None, expected: str | None
) -> None:
    settings = Settings(
        storage={"root": "r"}, events={"path": "e"}, feedback={"kind": "implicit"}, evaluate={"split": "random"},
        audit={"max_ndcg_drop": most},
    )  # fmt: skip
    found = [str(check) for check in ndcg_drop(Evaluated(now, earlier), settings) if not check.passed]
    assert found == ([] if expected is None else [expected])


def _verdicts(spark: SparkSession, rows: list[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame(
        [(user, "i", 1.0, None, None, status, reasons, "{}" if reasons else None) for user, status, reasons in rows],
        EVENTS.schema,
    )


def test_verdicts_are_counted_by_reason(spark: SparkSession) -> None:
    rows = [("a", "accepted", []), ("b", "accepted", []), ("c", "later", []), (None, "quarantined", ["x", "y"])]
    quarantine = spark.createDataFrame([("events", "{}", ["x", "y"]), ("items", "{}", ["x"])], QUARANTINE.schema)
    facts = count_verdicts(_verdicts(spark, rows), quarantine, carried=1)
    fingerprint = facts.pop("fingerprint")
    assert facts == {
        "input": 4,
        "carried": 1,
        "accepted": 3,
        "later": 1,
        "quarantined": 1,
        "reasons": {"events": {"x": 1, "y": 1}, "items": {"x": 1}},
    }
    again = count_verdicts(_verdicts(spark, rows[::-1]).repartition(3), quarantine, 1)
    assert again["fingerprint"] == fingerprint
    other = count_verdicts(_verdicts(spark, [*rows[:3], (None, "quarantined", []), ("d", "later", [])]), quarantine, 1)
    assert other["fingerprint"] != fingerprint


def test_too_many_quarantined_rows_are_refused() -> None:
    reasons = {"events": {"b": 2, "c": 5, "a": 2}, "items": {"z": 9}}
    facts = {"quarantined": 5, "input": 100, "reasons": reasons}
    require_few_quarantined(facts, 0.05, "/root/quarantine")
    with pytest.raises(AuditError) as failure:
        require_few_quarantined(facts, 0.049, "/root/quarantine")
    assert str(failure.value) == (
        "5 of 100 input rows (5.0%) were quarantined, more than events.max_quarantined_share = 0.049 allows: "
        "c 5, a 2, b 2. The rows lie in /root/quarantine"
    )
    assert failure.value.exit_code == 3
    require_few_quarantined({"quarantined": 0, "input": 0, "reasons": {}}, 0.0, "/root/quarantine")
