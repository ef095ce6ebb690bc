"""Checks raw input rows: every rule in one pass, each rejected row with all its reasons."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DateType,
    IntegralType,
    NumericType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from recsys_spark.errors import SettingsError
from recsys_spark.tables import EVENTS, FORGOTTEN_ID

if TYPE_CHECKING:
    from recsys_spark.sections import EventSettings, FeedbackSettings

CORRUPT_RECORD = "_corrupt_record"
"""Column that holds the text of a CSV or JSON record that does not parse."""

LARGEST_RATING = 1e9
"""Ratings are added up as fixed-point numbers, so that sums do not depend on their order; larger ones do not fit."""

_LAST_SECOND = 253_402_300_799  # of the year 9999
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def check_events(
    raw: DataFrame,
    events: EventSettings,
    feedback: FeedbackSettings,
    run_date: datetime.date,
    now: datetime.datetime,
) -> DataFrame:
    """All input rows with their verdict, as the table `events`.

    Raises:
        SettingsError: when a mapped column is of a type that cannot hold ids, ratings or times.
    """
    columns = events.columns
    parsed = raw.select(
        _as_id(raw, columns.user, "user").alias("user_id"),
        _as_id(raw, columns.item, "item").alias("item_id"),
        _as_double(raw, columns.rating).alias("rating"),
        _as_text(columns.event_type).alias("event_type"),
        as_timestamp(raw, columns.timestamp, events.timestamp_unit).alias("occurred_at"),
        _as_text(columns.rating).alias("raw_rating"),
        _as_text(columns.timestamp).alias("raw_timestamp"),
        (named(CORRUPT_RECORD) if CORRUPT_RECORD in raw.columns else F.lit(None).cast("string")).alias("corrupt"),
        F.to_json(F.struct(*[named(name) for name in raw.columns]), {"ignoreNullFields": "false"}).alias("row"),
    )
    checked = parsed.withColumn("reasons", broken_rules(_rules(events, feedback, run_date, now)))
    return checked.select(
        "user_id",
        "item_id",
        "rating",
        "event_type",
        "occurred_at",
        _status(run_date).alias("status"),
        "reasons",
        F.when(F.size("reasons") > 0, F.col("row")).alias("row"),
    )


def renew_verdict(kept: DataFrame, run_date: datetime.date) -> DataFrame:
    """Events that an earlier run kept as `later`, with their verdict as of this run date."""
    return kept.where(F.col("status") == "later").withColumn("status", _status(run_date)).select(*EVENTS.schema.names)


def quarantined(events: DataFrame) -> DataFrame:
    """The rejected rows, as the table `quarantine`."""
    rejected = events.where(F.col("status") == "quarantined")
    return rejected.select(F.lit("events").alias("source"), "row", "reasons")


def id_rules(column: str, name: str, max_bytes: int) -> dict[str, Column]:
    """Rules for an external id: reason -> condition that breaks it."""
    value = F.col(column)
    return {
        f"{name}_id_missing": value.isNull() | (F.trim(value) == ""),
        f"{name}_id_too_long": F.octet_length(value) > max_bytes,
        f"{name}_id_not_utf8": ~F.is_valid_utf8(value),
        f"{name}_id_reserved": value.startswith(FORGOTTEN_ID),
    }


def broken_rules(rules: dict[str, Column]) -> Column:
    """The names of the rules a row breaks, in order."""
    return F.array_compact(F.array(*[F.when(broken, F.lit(reason)) for reason, broken in rules.items()]))


def end_of(run_date: datetime.date) -> Column:
    """The first instant after the run date, in the session's time zone."""
    return F.lit(run_date + datetime.timedelta(days=1)).cast("timestamp")


def as_timestamp(raw: DataFrame, column: str | None, unit: str) -> Column:
    """A column as an instant: null when it is absent or does not parse."""
    if column is None:
        return F.lit(None).cast("timestamp")
    kind, value = raw.schema[column].dataType, named(column)
    if isinstance(kind, NumericType):
        return _from_epoch(value.cast("double"), unit)
    if isinstance(kind, StringType):
        return text_as_timestamp(value, unit)
    if not isinstance(kind, TimestampType | TimestampNTZType | DateType):
        raise SettingsError(
            f"events.columns.timestamp: column {column!r} is {kind.simpleString()}; "
            "times are timestamps, dates, text or numbers since the epoch"
        )
    return value.cast("timestamp")


def text_as_timestamp(value: Column, unit: str = "s") -> Column:
    """Text as an instant, a number since the epoch or a time as Spark reads it: null when it does not parse."""
    return F.coalesce(_from_epoch(value.try_cast("double"), unit), value.try_cast("timestamp"))


def _from_epoch(value: Column, unit: str) -> Column:
    seconds = value * _SECONDS[unit]
    fits = F.abs(seconds) <= _LAST_SECOND  # false for NaN too, which orders above all numbers
    return F.when(fits, F.timestamp_micros(F.round(seconds * 1e6).cast("bigint")))


def _status(run_date: datetime.date) -> Column:
    is_later = F.coalesce(F.col("occurred_at") >= end_of(run_date), F.lit(False))
    return F.when(F.size("reasons") > 0, "quarantined").when(is_later, "later").otherwise("accepted")


def _rules(
    events: EventSettings, feedback: FeedbackSettings, run_date: datetime.date, now: datetime.datetime
) -> dict[str, Column]:
    rules = {"corrupt_record": F.col("corrupt").isNotNull()}
    rules |= id_rules("user_id", "user", events.max_id_bytes) | id_rules("item_id", "item", events.max_id_bytes)
    if events.columns.rating is not None:
        rules |= _rating_rules(feedback)
    if feedback.event_weights:
        is_known = F.col("event_type").isin(*feedback.event_weights)
        rules |= {
            "event_type_missing": F.col("event_type").isNull(),
            "event_type_unknown": F.col("event_type").isNotNull() & ~is_known,
        }
    if events.columns.timestamp is not None:
        rules |= _timestamp_rules(events, run_date, now)
    return {reason: F.coalesce(broken, F.lit(False)) for reason, broken in rules.items()}


def _rating_rules(feedback: FeedbackSettings) -> dict[str, Column]:
    raw, rating = F.col("raw_rating"), F.col("rating")
    is_finite = ~F.isnan(rating) & (F.abs(rating) != float("inf"))
    low, high = (0.0, LARGEST_RATING) if feedback.kind == "implicit" else (-LARGEST_RATING, LARGEST_RATING)
    if feedback.kind == "explicit" and feedback.range is not None:
        low, high = feedback.range
    is_missing = raw.isNull() | (F.trim(raw) == "")
    return {
        "rating_missing": is_missing,
        "rating_unparseable": ~is_missing & rating.isNull(),
        "rating_not_finite": ~is_finite,
        "rating_out_of_range": is_finite & ~rating.between(low, high),
    }


def _timestamp_rules(events: EventSettings, run_date: datetime.date, now: datetime.datetime) -> dict[str, Column]:
    raw, occurred_at = F.col("raw_timestamp"), F.col("occurred_at")
    is_missing = raw.isNull() | (F.trim(raw) == "")
    # A clock may be wrong by a day; what is later than that has not happened.
    tomorrow = F.lit(now + datetime.timedelta(days=1)).cast("timestamp")
    return {
        "timestamp_missing": is_missing,
        "timestamp_unparseable": ~is_missing & occurred_at.isNull(),
        "timestamp_too_old": occurred_at < F.lit(events.earliest).cast("timestamp"),
        "timestamp_in_future": occurred_at >= F.greatest(tomorrow, end_of(run_date)),
    }


def named(column: str) -> Column:
    """The column of this name, whatever characters are in it."""
    return F.col("`" + column.replace("`", "``") + "`")


def _as_text(column: str | None) -> Column:
    return F.lit(None).cast("string") if column is None else named(column).cast("string")


def _as_id(raw: DataFrame, column: str, name: str) -> Column:
    kind = raw.schema[column].dataType
    if not isinstance(kind, StringType | IntegralType):
        raise SettingsError(
            f"events.columns.{name}: column {column!r} is {kind.simpleString()}; ids are text or whole numbers"
        )
    return named(column).cast("string")


def _as_double(raw: DataFrame, column: str | None) -> Column:
    if column is None:
        return F.lit(None).cast("double")
    kind = raw.schema[column].dataType
    if not isinstance(kind, StringType | NumericType | BooleanType):
        raise SettingsError(f"events.columns.rating: column {column!r} is {kind.simpleString()}; ratings are numbers")
    return named(column).try_cast("double")
