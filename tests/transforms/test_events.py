from __future__ import annotations

import datetime
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.errors import SettingsError
from recsys_spark.sections import EventColumns, EventSettings, FeedbackSettings
from recsys_spark.tables import EVENTS
from recsys_spark.transforms.events import check_events, quarantined, renew_verdict

RUN_DATE = datetime.date(2026, 11, 22)
NOW = datetime.datetime(2026, 11, 22, 3, tzinfo=datetime.UTC)
COLUMNS = EventColumns(user="u", item="i", rating="r", event_type="e", timestamp="t")
GOOD = {"u": "ann", "i": "tea", "r": "4.5", "e": "view", "t": "2026-11-20 10:00:00"}


def events_settings(**changes: Any) -> EventSettings:
    return EventSettings(**{"path": "unused", "columns": COLUMNS, **changes})


def frame(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    return spark.createDataFrame([{**GOOD, **row} for row in rows], "u string, i string, r string, e string, t string")


def reasons(raw: DataFrame, feedback: FeedbackSettings | None = None, **changes: Any) -> list[list[str]]:
    checked = check_events(raw, events_settings(**changes), feedback or FeedbackSettings(), RUN_DATE, NOW)
    return [row["reasons"] for row in checked.collect()]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, []),
        ({"u": None}, ["user_id_missing"]),
        ({"u": ""}, ["user_id_missing"]),
        ({"u": "   "}, ["user_id_missing"]),
        ({"u": "x" * 1025}, ["user_id_too_long"]),
        ({"u": "é" * 512}, []),
        ({"u": "é" * 513}, ["user_id_too_long"]),
        ({"i": None}, ["item_id_missing"]),
        ({"i": "x" * 10_000}, ["item_id_too_long"]),
        ({"u": 'quote " and \n newline \U0001f600'}, []),
        ({"r": None}, ["rating_missing"]),
        ({"r": "great"}, ["rating_unparseable"]),
        ({"r": "NaN"}, ["rating_not_finite"]),
        ({"r": "-Infinity"}, ["rating_not_finite"]),
        ({"r": "1e400"}, ["rating_not_finite"]),
        ({"r": "1e10"}, ["rating_out_of_range"]),
        ({"t": None}, ["timestamp_missing"]),
        ({"t": "yesterday"}, ["timestamp_unparseable"]),
        ({"t": "1969-12-31"}, ["timestamp_too_old"]),
        ({"t": "2026-11-24"}, ["timestamp_in_future"]),
        ({"u": None, "i": "", "r": "x"}, ["user_id_missing", "item_id_missing", "rating_unparseable"]),
    ],
)  # fmt: skip
def test_each_rule_gives_its_reason(spark: SparkSession, row: dict[str, Any], expected: list[str]) -> None:
    assert reasons(frame(spark, row)) == [expected]


def test_a_configured_range_bounds_explicit_ratings(spark: SparkSession) -> None:
    raw = frame(spark, {"r": "0.5"}, {"r": "1"}, {"r": "5"}, {"r": "5.1"})
    found = reasons(raw, FeedbackSettings(range=(1, 5)))
    assert found == [["rating_out_of_range"], [], [], ["rating_out_of_range"]]


def test_implicit_strengths_cannot_be_negative(spark: SparkSession) -> None:
    found = reasons(frame(spark, {"r": "-1"}, {"r": "0"}), FeedbackSettings(kind="implicit"))
    assert found == [["rating_out_of_range"], []]


def test_event_types_must_have_a_weight(spark: SparkSession) -> None:
    feedback = FeedbackSettings(kind="implicit", event_weights={"view": 0.1})
    found = reasons(frame(spark, {"e": "view"}, {"e": "scroll"}, {"e": None}), feedback)
    assert found == [[], ["event_type_unknown"], ["event_type_missing"]]


def test_a_corrupt_record_is_quarantined(spark: SparkSession) -> None:
    raw = frame(spark, {}).withColumn("_corrupt_record", F.lit("half a li"))
    assert reasons(raw) == [["corrupt_record"]]


def test_ids_that_are_not_utf8_are_quarantined(spark: SparkSession) -> None:
    raw = frame(spark, {}).withColumn("u", F.expr("cast(X'FF41' as string)"))
    assert reasons(raw) == [["user_id_not_utf8"]]


def test_events_after_the_run_date_are_later_not_quarantined(spark: SparkSession) -> None:
    raw = frame(spark, {"t": "2026-11-22 23:59:59.999"}, {"t": "2026-11-23 00:00:00"})
    checked = check_events(raw, events_settings(), FeedbackSettings(), RUN_DATE, NOW)
    assert [row["status"] for row in checked.orderBy("occurred_at").collect()] == ["accepted", "later"]


def test_later_events_are_accepted_by_a_later_run(spark: SparkSession) -> None:
    raw = frame(spark, {"t": "2026-11-20"}, {"t": "2026-11-22"}, {"t": "2026-11-22"})
    kept = check_events(raw, events_settings(), FeedbackSettings(), datetime.date(2026, 11, 21), NOW)
    renewed = renew_verdict(kept, RUN_DATE)
    assert [row["status"] for row in renewed.collect()] == ["accepted", "accepted"]
    assert renewed.columns == EVENTS.schema.names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("881250949", "1997-12-04 15:55:49"),
        ("8.81250949E8", "1997-12-04 15:55:49"),
        ("881250949.5", "1997-12-04 15:55:49.5"),
        ("2026-11-20", "2026-11-20 00:00:00"),
        ("2026-11-20T10:00:00+02:00", "2026-11-20 08:00:00"),
        ("2026-11-20T10:00:00Z", "2026-11-20 10:00:00"),
    ],
)
def test_timestamps_are_read_from_text(spark: SparkSession, text: str, expected: str) -> None:
    checked = check_events(frame(spark, {"t": text}), events_settings(), FeedbackSettings(), RUN_DATE, NOW)
    assert [
        str(row[0]).removesuffix("00000") for row in checked.select(F.col("occurred_at").cast("string")).collect()
    ] == [expected]


@pytest.mark.parametrize(("unit", "number"), [("s", 881250949), ("ms", 881250949000), ("us", 881250949000000)])
def test_numeric_timestamps_have_a_unit(spark: SparkSession, unit: str, number: int) -> None:
    raw = frame(spark, {}).withColumn("t", F.lit(number))
    checked = check_events(raw, events_settings(timestamp_unit=unit), FeedbackSettings(), RUN_DATE, NOW)
    assert checked.select(F.col("occurred_at").cast("string")).collect()[0][0] == "1997-12-04 15:55:49"


def test_numbers_too_large_for_a_time_do_not_stop_the_job(spark: SparkSession) -> None:
    raw = frame(spark, {"t": "1e300"}, {"t": "NaN"}, {"t": "99999999999999999999"})
    assert reasons(raw) == [["timestamp_unparseable"]] * 3


def test_quarantined_rows_keep_their_content(spark: SparkSession) -> None:
    raw = frame(spark, {"u": None, "i": 'a "b"'}, {})
    rejected = quarantined(check_events(raw, events_settings(), FeedbackSettings(), RUN_DATE, NOW)).collect()
    assert [(row["source"], row["reasons"]) for row in rejected] == [("events", ["user_id_missing"])]
    assert '"i":"a \\"b\\""' in rejected[0]["row"]
    assert '"u":null' in rejected[0]["row"]


def test_integer_ids_become_text(spark: SparkSession) -> None:
    raw = frame(spark, {}).withColumn("u", F.lit(7)).withColumn("i", F.lit(2**40))
    checked = check_events(raw, events_settings(), FeedbackSettings(), RUN_DATE, NOW).collect()[0]
    assert (checked["user_id"], checked["item_id"]) == ("7", str(2**40))


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("u", "double", "events.columns.user: column 'u' is double; ids are text or whole numbers"),
        ("r", "date", "events.columns.rating: column 'r' is date; ratings are numbers"),
        ("t", "array<int>", "events.columns.timestamp: column 't' is array<int>"),
    ],
)
def test_columns_of_a_wrong_type_are_named(spark: SparkSession, column: str, kind: str, message: str) -> None:
    raw = frame(spark, {}).withColumn(column, F.lit(None).cast(kind))
    with pytest.raises(SettingsError, match=message.replace("<", ".").replace(">", ".")):
        check_events(raw, events_settings(), FeedbackSettings(), RUN_DATE, NOW)


def test_columns_with_awkward_names_are_read(spark: SparkSession) -> None:
    raw = frame(spark, {}).withColumnRenamed("u", "user.id `x`")
    columns = COLUMNS.model_copy(update={"user": "user.id `x`"})
    checked = check_events(raw, events_settings(columns=columns), FeedbackSettings(), RUN_DATE, NOW)
    assert checked.collect()[0]["user_id"] == "ann"
