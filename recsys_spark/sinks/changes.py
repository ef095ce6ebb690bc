"""What changed between the lists of two runs, and lists as lines."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def changed_lists(lists: DataFrame, before: DataFrame, with_scores: bool = True) -> DataFrame:
    """`op`, `user_id`, `item_ids`, `scores`, `tier` of the lists that are new or other than before: `upsert`.

    Users who had a list and have none: `delete`, without a list. Without `with_scores`, a list of the same items in the
    same order is the same.
    """
    new, old = lists.alias("new"), before.alias("old")
    compared = ["item_ids", "scores", "tier"] if with_scores else ["item_ids"]
    is_same = F.lit(True)
    for name in compared:
        is_same &= F.col(f"new.{name}").eqNullSafe(F.col(f"old.{name}"))
    is_gone = F.col("new.user_id").isNull()
    joined = new.join(old, F.col("new.user_id") == F.col("old.user_id"), how="full_outer")
    return joined.where(is_gone | F.col("old.user_id").isNull() | ~is_same).select(
        F.when(is_gone, "delete").otherwise("upsert").alias("op"),
        F.coalesce("new.user_id", "old.user_id").alias("user_id"),
        "new.item_ids",
        "new.scores",
        "new.tier",
    )


def one_line_an_item(lists: DataFrame) -> DataFrame:
    """`rank`, `item_id`, `score` in place of `item_ids` and `scores`; of an empty or missing list one line, rank 0."""
    first = [name for name in ("op", "user_id") if name in lists.columns]
    placed = F.arrays_zip("item_ids", "scores")
    return lists.select(*first, F.posexplode_outer(placed).alias("place", "listed"), "tier").select(
        *first,
        F.coalesce(F.col("place") + 1, F.lit(0)).alias("rank"),
        F.col("listed.item_ids").alias("item_id"),
        F.col("listed.scores").alias("score"),
        "tier",
    )
