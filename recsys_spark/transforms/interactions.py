"""Turns accepted events into one rating between 0 and 1 for each user-item pair, and splits the pairs."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.transforms.events import end_of

if TYPE_CHECKING:
    from recsys_spark.sections import EvaluateSettings, FeedbackSettings

_EXACT = "decimal(28,9)"  # sums of fixed-point numbers do not depend on their order
_TYPES = "map<string,timestamp>"
_HASHES = 1_000_000
_DAY_S = 86_400.0


def weigh_events(events: DataFrame, feedback: FeedbackSettings, run_date: datetime.date) -> DataFrame:
    """Accepted events with their `value`: the rating, or the weight of the event after decay.

    Gives `user_id, item_id, value, event_type, occurred_at`.
    """
    value = F.col("rating")
    if feedback.kind == "implicit":
        value = _weight(feedback) * F.coalesce("rating", F.lit(1.0))
        if feedback.half_life_days is not None:
            value = value * _decay(F.col("occurred_at"), end_of(run_date), feedback.half_life_days)
    accepted = events.where(F.col("status") == "accepted")
    return accepted.select("user_id", "item_id", value.alias("value"), "event_type", "occurred_at")


def gather_pairs(
    events: DataFrame,
    users: DataFrame,
    items: DataFrame,
    feedback: FeedbackSettings,
    kept: DataFrame | None = None,
) -> DataFrame:
    """One row a pair: `user_idx, item_idx, value, event_count, last_at, last_at_by_type`.

    Args:
        events: weighed events.
        users: the user index.
        items: the item index.
        feedback: how several events of a pair become one value.
        kept: interactions of the run before, to merge the events into (incremental input).
    """
    positioned = (
        events.join(users.select("user_id", "user_idx"), on="user_id", how="inner")
        .join(items.select("item_id", "item_idx"), on="item_id", how="inner")
        # One shuffle serves both groupings below and the split after them.
        .repartition("user_idx")
    )
    parts = _by_type(positioned)
    if kept is not None:
        parts = parts.unionByName(_kept_parts(kept, feedback)).repartition("user_idx")
    return _merge(parts, feedback)


def decay_kept(kept: DataFrame, feedback: FeedbackSettings, days: int) -> DataFrame:
    """Interactions of an earlier run with their values aged by `days` (implicit feedback with a half-life)."""
    if feedback.half_life_days is None:
        return kept
    return kept.withColumn("value", F.col("value") * 2.0 ** (-days / feedback.half_life_days))


def scale_ratings(pairs: DataFrame, value_range: tuple[float, float], lowest: float) -> DataFrame:
    """Adds `rating`: the value scaled so that the range becomes `lowest`..1; values outside are clipped.

    A range of one point (all ratings equal) gives 1: the pair is known, nothing more.
    """
    low, high = value_range
    if low == high:
        return pairs.withColumn("rating", F.lit(1.0).cast("float"))
    share = (F.greatest(F.least("value", F.lit(high)), F.lit(low)) - F.lit(low)) / F.lit(high - low)
    return pairs.withColumn("rating", (F.lit(lowest) + share * F.lit(1.0 - lowest)).cast("float"))


def assign_splits(pairs: DataFrame, evaluate: EvaluateSettings, seed: int) -> DataFrame:
    """Adds `split`: train, validation or test, and puts the columns in the order of `interactions`.

    `last`: a user's newest pair tests when the user has two or more, the one before validates when there are three.
    `newest`: the same of the newest share of the pairs, at least one, and as many before them.
    `random`: a pure function of the pair and the seed, so that a pair stays where it is from night to night.
    """
    if evaluate.split == "random":
        split = _random_split(evaluate.share, seed)
    else:
        split = _newest_split(evaluate.share if evaluate.split == "newest" else 0.0)
    return pairs.withColumn("split", split).select(
        "user_idx", "item_idx", "rating", "value", "event_count", "last_at", "last_at_by_type", "split"
    )


def hold_back_test(pairs: DataFrame, evaluate: EvaluateSettings, seed: int) -> DataFrame:
    """Interactions for tuning: without their test pairs, and measured on those that validated.

    What was held out to validate becomes `test`, and of what is left as much is held out anew to validate, by the same
    rule with another seed.
    """
    measured = pairs.where(F.col("split") == "validation").withColumn("split", F.lit("test"))
    rest = assign_splits(pairs.where(F.col("split") == "train").drop("split"), evaluate, seed + 1)
    split = F.when(F.col("split") == "test", "validation").otherwise("train")
    return rest.withColumn("split", split).unionByName(measured.select(*rest.columns))


def take_splits(pairs: DataFrame, users: DataFrame, items: DataFrame, split_ids: DataFrame) -> DataFrame:
    """Interactions with the splits of the same pairs elsewhere; a pair that is not there is left out.

    Args:
        pairs: the interactions.
        users: their user index.
        items: their item index.
        split_ids: `user_id, item_id, split`.
    """
    positioned = (
        split_ids.join(users.select("user_idx", "user_id"), on="user_id", how="inner")
        .join(items.select("item_idx", "item_id"), on="item_id", how="inner")
        .select("user_idx", "item_idx", "split")
    )
    return pairs.drop("split").join(positioned, on=["user_idx", "item_idx"], how="inner").select(*pairs.columns)


def _newest_split(share: float) -> Column:
    by_user = Window.partitionBy("user_idx")
    age = F.row_number().over(by_user.orderBy(F.col("last_at").desc_nulls_last(), F.col("item_idx").desc()))
    pairs = F.count("*").over(by_user)
    tested = F.greatest(F.floor(pairs * F.lit(share)), F.lit(1))
    is_test, is_validation = (age <= tested) & (pairs >= 2), (age <= 2 * tested) & (pairs >= 3)
    return F.when(is_test, "test").when(is_validation, "validation").otherwise("train")


def _random_split(share: float, seed: int) -> Column:
    point = F.pmod(F.xxhash64(F.lit(seed), "user_idx", "item_idx"), F.lit(_HASHES)) / F.lit(_HASHES)
    return F.when(point < share, "test").when(point < 2 * share, "validation").otherwise("train")


def _weight(feedback: FeedbackSettings) -> Column:
    if not feedback.event_weights:
        return F.lit(1.0)
    weights = [F.lit(part) for pair in feedback.event_weights.items() for part in pair]
    return F.element_at(F.create_map(*weights), F.col("event_type"))


def _decay(occurred_at: Column, until: Column, half_life_days: float) -> Column:
    age_days = (F.unix_micros(until) - F.unix_micros(occurred_at)) / F.lit(1e6 * _DAY_S)
    return F.pow(F.lit(2.0), -age_days / F.lit(half_life_days))


def _by_type(events: DataFrame) -> DataFrame:
    """Events grouped by pair and type: what `_merge` needs to know of them."""
    newest = F.struct(F.col("occurred_at").alias("at"), F.col("value").alias("value"))
    has_type = F.col("event_type").isNotNull() & F.col("last_at").isNotNull()
    return (
        events.groupBy("user_idx", "item_idx", "event_type")
        .agg(
            F.count("*").alias("events"),
            F.sum(F.col("value").cast(_EXACT)).alias("total"),
            F.max("value").alias("largest"),
            F.max(newest).alias("newest"),
            F.max("occurred_at").alias("last_at"),
        )
        .withColumn(
            "types", F.when(has_type, F.create_map("event_type", "last_at")).otherwise(F.from_json(F.lit("{}"), _TYPES))
        )
        .drop("event_type")
    )


def _kept_parts(kept: DataFrame, feedback: FeedbackSettings) -> DataFrame:
    count = F.col("event_count") if feedback.duplicate_policy == "mean" else F.lit(1)
    return kept.select(
        "user_idx",
        "item_idx",
        F.col("event_count").alias("events"),
        (F.col("value") * count).cast(_EXACT).alias("total"),
        F.col("value").alias("largest"),
        F.struct(F.col("last_at").alias("at"), F.col("value").alias("value")).alias("newest"),
        "last_at",
        F.col("last_at_by_type").alias("types"),
    )


def _merge(parts: DataFrame, feedback: FeedbackSettings) -> DataFrame:
    values = {
        "last": F.max("newest")["value"],
        "max": F.max("largest"),
        "sum": F.sum("total").cast("double"),
        "mean": F.sum("total").cast("double") / F.sum("events"),
    }
    newest_by_type = F.reduce(
        F.collect_list("types"),
        F.from_json(F.lit("{}"), _TYPES),
        lambda merged, types: F.map_zip_with(merged, types, lambda _, left, right: F.greatest(left, right)),
    )
    grouped = parts.groupBy("user_idx", "item_idx").agg(
        values[feedback.duplicate_policy].alias("value"),
        F.sum("events").alias("event_count"),
        F.max("last_at").alias("last_at"),
        newest_by_type.alias("types"),
    )
    in_order = F.map_from_entries(F.array_sort(F.map_entries("types")))
    return grouped.withColumn("last_at_by_type", in_order).drop("types")
