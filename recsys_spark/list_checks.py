"""Checks of lists: as many and as full as can be, without doubles, with sane scores, not all alike, not all new."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.audit import Check, Facts, at_least, at_most, equals

if TYPE_CHECKING:
    from recsys_spark.sections import AuditSettings

_TOP_SHARE = 0.01


def free_items(users: DataFrame, interactions: DataFrame, candidates: DataFrame, exclude_seen: bool) -> DataFrame:
    """How many items could be in each user's list at most, as `user_id, free`.

    Args:
        users: the user index.
        interactions: the table `interactions`.
        candidates: the items that can be recommended, as `item_idx`.
        exclude_seen: whether a user's own items stay out of the list.
    """
    seen = interactions.join(candidates, on="item_idx", how="left_semi").groupBy("user_idx")
    seen_count = F.coalesce("seen", F.lit(0)) if exclude_seen else F.lit(0)
    return (
        users.join(seen.agg(F.count("*").alias("seen")), on="user_idx", how="left")
        .crossJoin(F.broadcast(candidates.agg(F.count("*").alias("candidates"))))  # one row
        .select("user_id", (F.col("candidates") - seen_count).alias("free"))
    )


def audit_lists(
    lists: DataFrame, free: DataFrame, n_users: int, top_k: int, settings: AuditSettings, is_reranked: bool = False
) -> tuple[Check, ...]:
    """Check `recommendations`: every user once, as full as can be, no item twice in a list, sane scores.

    Scores must fall within a list, unless it is in another order on purpose, `is_reranked`.
    """
    size, possible = F.size("item_ids"), F.least(F.col("free"), F.lit(top_k))
    falls = F.forall(F.sequence(F.lit(1), size - 1), lambda i: F.get("scores", i) <= F.get("scores", i - 1))
    is_finite = F.forall("scores", lambda score: ~F.isnan(score) & (F.abs(score) < float("inf")))
    counts = (
        lists.join(free, on="user_id", how="left")
        .agg(
            F.count("*").alias("lists"),
            F.count_distinct("user_id").alias("users"),
            F.count_if(size > 0).alias("filled"),
            F.count_if(possible > 0).alias("fillable"),
            F.count_if(size < possible).alias("short"),
            F.count_if(F.size(F.array_distinct("item_ids")) < size).alias("repeated"),
            F.count_if(~is_finite).alias("not_finite"),
            F.count_if((size > 1) & ~falls).alias("unordered"),
            F.count_if((F.size("scores") > 1) & (F.array_min("scores") == F.array_max("scores"))).alias("constant"),
            F.count_if(F.size("scores") > 1).alias("several"),
            F.count_if(size != F.size("scores")).alias("unpaired"),
        )
        .collect()[0]
    )
    return (
        equals("lists", counts["lists"], n_users),
        equals("distinct users", counts["users"], n_users),
        at_least(
            "share of users with items",
            counts["filled"] / counts["fillable"] if counts["fillable"] else 1.0,
            settings.min_user_coverage,
        ),
        at_most(
            "share of lists shorter than they could be",
            counts["short"] / max(n_users, 1),
            settings.max_underfilled_share,
        ),
        equals("lists with an item twice", counts["repeated"], 0),
        equals("lists with scores that are no numbers", counts["not_finite"], 0),
        *(() if is_reranked else (equals("lists not ordered by score", counts["unordered"], 0),)),
        equals("lists without a score an item", counts["unpaired"], 0),
        at_most(
            "share of lists whose scores are all the same",
            counts["constant"] / max(counts["several"], 1),
            settings.max_constant_share,
        ),
    )


def count_lists(lists: DataFrame) -> Facts:
    """Lists by tier, those that are shorter than they were to be, and why, by how many items of all such lists."""
    tiers = lists.groupBy("tier").count().collect()
    short = lists.where(F.col("left_out").isNotNull())
    each = short.select(F.explode("left_out").alias("reason", "items"))
    reasons = each.groupBy("reason").agg(F.sum("items").alias("n"))
    return {
        "tiers": {row["tier"]: row["count"] for row in tiers},
        "short_lists": short.count(),
        "left_out": {row["reason"]: row["n"] for row in reasons.orderBy("reason").collect()},
    }


def share_of_top_items(lists: DataFrame, n_items: int) -> float:
    """The share of all list places that the most listed hundredth of the items takes; 0 without a place."""
    counts = lists.select(F.explode("item_ids").alias("item")).groupBy("item").agg(F.count("*").alias("n"))
    total = counts.agg(F.sum("n")).collect()[0][0]
    top = counts.orderBy(F.desc("n")).limit(math.ceil(_TOP_SHARE * n_items)).agg(F.sum("n")).collect()[0][0]
    return float(top / total) if total else 0.0


def mean_overlap(lists: DataFrame, before: DataFrame) -> float | None:
    """The mean share of a list that was in the same user's list before; None where no user has both."""
    earlier = before.select("user_id", F.col("item_ids").alias("earlier_ids"))
    both = lists.join(earlier, on="user_id", how="inner").where((F.size("item_ids") > 0) & (F.size("earlier_ids") > 0))
    share = F.size(F.array_intersect("item_ids", "earlier_ids")) / F.size("item_ids")
    mean = both.agg(F.avg(share)).collect()[0][0]
    return None if mean is None else float(mean)
