"""Users who asked to be forgotten: their rows left out, and their place in the index kept without a name."""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.tables import FORGOTTEN_ID


def without_forgotten(rows: DataFrame, column: str, hashes: Collection[str]) -> DataFrame:
    """The rows whose id is not one of those, by SHA-256; rows without an id stay."""
    return rows.where(~_is_forgotten(F.col(column), hashes)) if hashes else rows


def without_names(users: DataFrame, hashes: Collection[str]) -> DataFrame:
    """The user index with a place, but no id and no attribute, of who is forgotten: other positions must not change."""
    if not hashes:
        return users
    is_forgotten = _is_forgotten(F.col("user_id"), hashes)
    name = F.concat(F.lit(FORGOTTEN_ID), F.col("user_idx").cast("string"))
    return users.select(
        "user_idx",
        F.when(is_forgotten, name).otherwise(F.col("user_id")).alias("user_id"),
        F.when(is_forgotten, F.from_json(F.lit("{}"), "map<string,string>"))
        .otherwise(F.col("attributes"))
        .alias("attributes"),
    )


def forgotten_users(users: DataFrame) -> DataFrame:
    """The places of who is forgotten, as `user_idx`."""
    return users.where(F.col("user_id").startswith(FORGOTTEN_ID)).select("user_idx")


def _is_forgotten(user_id: Column, hashes: Collection[str]) -> Column:
    return F.coalesce(F.sha2(user_id, 256).isin(*hashes), F.lit(False))
