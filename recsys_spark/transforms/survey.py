"""Counts what there is to learn from, in one pass: interactions of users and items, attributes of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

FEW = 5
"""Users and items with fewer interactions than this have few."""

VALIDATED = 3
"""Interactions a user must have for one of them to validate and one to test (`evaluate.split`)."""

REJECTED = "rejected"
_ENTITIES = ("users", "items")
_NUMBERS = r"^[-+0-9.eE,;\s]+$"
_BETWEEN_WORDS = r"[\s|;,]+"


def survey_events(checked: DataFrame, described: Mapping[str, DataFrame]) -> DataFrame:
    """One row for each of users, items and rejected input rows: `kind`, and counts of them.

    Args:
        checked: the input rows with their verdict; those after the run date count as interactions, too.
        described: the described users and items, as `describe_entities` gives them.
    """
    rows = _sides(_pairs(checked))
    for kind, entities in described.items():
        rows = rows.unionByName(_without_pairs(kind, entities), allowMissingColumns=True)
    return _by_kind(_by_entity(rows))


def survey_attributes(items: DataFrame, names: Sequence[str]) -> DataFrame:
    """One row: the described items, and of each attribute `filled`, `words`, `numeric` and `distinct`, as structs."""
    fitting = items.where(F.size("reasons") == 0)
    return fitting.agg(F.count("*").alias("rows"), *[_attribute(name).alias(name) for name in names])


def _attribute(name: str) -> Column:
    value = F.trim(F.col("attributes")[name])
    filled = F.when(value != "", value)
    return F.struct(
        F.count(filled).alias("filled"),
        F.avg(F.size(F.split(filled, _BETWEEN_WORDS))).alias("words"),
        F.count_if(filled.rlike(_NUMBERS)).alias("numeric"),
        F.approx_count_distinct(filled).alias("distinct"),
    )


def _pairs(checked: DataFrame) -> DataFrame:
    """One row a user-item pair; the rejected rows are a pair of nobody and nothing."""
    is_kept = F.col("status") != "quarantined"
    ids = [F.when(is_kept, F.col(name)).alias(name) for name in ("user_id", "item_id")]
    return (
        checked.select(*ids, "rating", "occurred_at")
        .groupBy("user_id", "item_id")
        .agg(
            F.count("*").alias("events"),
            F.min("rating").alias("lowest"),
            F.max("rating").alias("highest"),
            F.min("occurred_at").alias("first_at"),
            F.max("occurred_at").alias("last_at"),
        )
    )


def _sides(pairs: DataFrame) -> DataFrame:
    """Each pair twice, for its user and for its item."""
    user, item = (
        F.struct(F.lit(kind).alias("kind"), F.col(column).alias("id"))
        for kind, column in zip(_ENTITIES, ("user_id", "item_id"), strict=True)
    )
    nobody = F.struct(F.lit(REJECTED).alias("kind"), F.lit("").alias("id"))
    sides = F.when(F.col("user_id").isNull(), F.array(nobody)).otherwise(F.array(user, item))
    exploded = pairs.withColumn("side", F.explode(sides)).withColumn("pairs", F.lit(1))
    return exploded.select("side.kind", "side.id", "pairs", "events", "lowest", "highest", "first_at", "last_at")


def _without_pairs(kind: str, entities: DataFrame) -> DataFrame:
    fitting = entities.where(F.size("reasons") == 0)
    return fitting.select(F.lit(kind).alias("kind"), "id", F.lit(0).alias("pairs"), F.lit(0).alias("events"))


def _by_entity(rows: DataFrame) -> DataFrame:
    return rows.groupBy("kind", "id").agg(
        F.sum("pairs").alias("pairs"),
        F.sum("events").alias("events"),
        F.min("lowest").alias("lowest"),
        F.max("highest").alias("highest"),
        F.min("first_at").alias("first_at"),
        F.max("last_at").alias("last_at"),
    )


def _by_kind(entities: DataFrame) -> DataFrame:
    pairs = F.col("pairs")
    return entities.groupBy("kind").agg(
        F.count("*").alias("known"),
        F.count_if(pairs > 0).alias("active"),
        F.count_if(pairs < FEW).alias("few"),
        F.count_if(pairs >= VALIDATED).alias("validated"),
        F.count_if((pairs > 1) & (F.col("last_at") > F.col("first_at"))).alias("in_order"),
        F.percentile_approx(F.when(pairs > 0, pairs), 0.5).alias("median"),
        F.sum("pairs").alias("pairs"),
        F.sum("events").alias("events"),
        F.min("lowest").alias("lowest"),
        F.max("highest").alias("highest"),
    )
