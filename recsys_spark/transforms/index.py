"""Gives external ids their positions: contiguous, deterministic, kept from night to night."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recsys_spark.transforms.events import CORRUPT_RECORD, broken_rules, id_rules, named

if TYPE_CHECKING:
    from recsys_spark.sections import EntitySettings

BUCKETS = 1024
"""New ids are numbered inside hash buckets, in parallel; a constant, or positions would depend on it."""


def describe_entities(raw: DataFrame, settings: EntitySettings, max_id_bytes: int) -> DataFrame:
    """An items or users input as `id, attributes, reasons, row`, one row an input row."""
    pairs = [part for name, column in settings.attributes.items() for part in (F.lit(name), _as_text(raw, column))]
    is_corrupt = named(CORRUPT_RECORD).isNotNull() if CORRUPT_RECORD in raw.columns else F.lit(False)
    described = raw.select(
        named(settings.id).cast("string").alias("id"),
        (F.create_map(*pairs) if pairs else _no_attributes()).alias("attributes"),
        is_corrupt.alias("is_corrupt"),
        F.to_json(F.struct(*[named(name) for name in raw.columns])).alias("row"),
    )
    rules = {"corrupt_record": F.col("is_corrupt"), **id_rules("id", "entity", max_id_bytes)}
    present = F.map_filter("attributes", lambda _, value: value.isNotNull())
    return described.select("id", present.alias("attributes"), broken_rules(rules).alias("reasons"), "row")


def known_ids(events: DataFrame, column: str, described: DataFrame | None) -> DataFrame:
    """Distinct ids of the accepted events and of the described entities, as `id, attributes`."""
    ids = events.where(F.col("status") == "accepted").select(
        F.col(column).alias("id"), F.lit(None).cast("string").alias("described")
    )
    if described is not None:
        fitting = described.where(F.size("reasons") == 0)
        ids = ids.unionByName(fitting.select("id", F.to_json("attributes").alias("described")))
    # A map has no order; its text has, so one of several descriptions is chosen the same way every time.
    chosen = ids.groupBy("id").agg(F.max("described").alias("described"))
    return chosen.select("id", F.from_json("described", "map<string,string>").alias("attributes"))


def rejected_entities(quarantine: DataFrame, entities: dict[str, DataFrame]) -> DataFrame:
    """The quarantine with the rejected rows of the described items and users added."""
    for source, described in entities.items():
        rejected = described.where(F.size("reasons") > 0)
        quarantine = quarantine.unionByName(rejected.select(F.lit(source).alias("source"), "row", "reasons"))
    return quarantine


def append_index(ids: DataFrame, known: DataFrame | None, known_count: int, name: str) -> DataFrame:
    """The index `name_idx, name_id, attributes`: known ids keep their positions, new ones follow.

    Args:
        ids: distinct `id, attributes` (null when not described tonight).
        known: the index of the run before, or None.
        known_count: rows of `known`.
        name: `user` or `item`.
    """
    idx, external = f"{name}_idx", f"{name}_id"
    if known is None:
        return _number(ids, 0, idx, external)
    tonight = ids.select(F.col("id").alias(external), F.col("attributes").alias("renewed"))
    kept = known.join(tonight, on=external, how="left").select(
        idx, external, F.coalesce("renewed", "attributes").alias("attributes")
    )
    new = ids.join(known.select(F.col(external).alias("id")), on="id", how="left_anti")
    return kept.unionByName(_number(new, known_count, idx, external))


def _number(ids: DataFrame, first: int, idx: str, external: str) -> DataFrame:
    """Contiguous positions from `first` in the order (hash bucket, id): no window spans more than a bucket."""
    bucketed = ids.withColumn("bucket", F.pmod(F.xxhash64("id"), F.lit(BUCKETS)))
    sizes = bucketed.groupBy("bucket").agg(F.count("*").alias("size"))
    before = sizes.select(F.col("bucket").alias("earlier"), "size")
    starts = (
        sizes.select("bucket")
        .join(F.broadcast(before), on=F.col("earlier") < F.col("bucket"), how="left")
        .groupBy("bucket")
        .agg(F.coalesce(F.sum("size"), F.lit(0)).alias("start"))
    )
    position = F.row_number().over(Window.partitionBy("bucket").orderBy("id")) - 1
    return (
        bucketed.withColumn("position", position)
        .join(F.broadcast(starts), on="bucket", how="inner")
        .select(
            (F.lit(first) + F.col("start") + F.col("position")).cast("int").alias(idx),
            F.col("id").alias(external),
            F.coalesce("attributes", _no_attributes()).alias("attributes"),
        )
    )


def _as_text(raw: DataFrame, column: str) -> Column:
    is_array = raw.schema[column].dataType.typeName() == "array"
    return F.concat_ws(" ", named(column)) if is_array else named(column).cast("string")


def _no_attributes() -> Column:
    return F.from_json(F.lit("{}"), "map<string,string>")
