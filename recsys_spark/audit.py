"""What must hold before anything is published: the gate on the input and the audit of the lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import AuditError

if TYPE_CHECKING:
    from recsys_spark.sections import AuditSettings

Facts = dict[str, Any]
"""What a step has to tell: plain values, kept with the run and shown at its end."""


def count_verdicts(events: DataFrame, quarantine: DataFrame, carried: int) -> Facts:
    """Rows by verdict and by reason; `input = accepted + quarantined`, `later` being part of the accepted.

    Args:
        events: the table `events`.
        quarantine: the table `quarantine`, of all sources.
        carried: rows of `events` that an earlier run kept for later; they count as input.
    """
    verdicts = {row["status"]: row["count"] for row in events.groupBy("status").count().collect()}
    reasons = quarantine.select("source", F.explode("reasons").alias("reason")).groupBy("source", "reason").count()
    by_source: dict[str, dict[str, int]] = {}
    for row in reasons.orderBy("source", "reason").collect():
        by_source.setdefault(row["source"], {})[row["reason"]] = row["count"]
    columns = ["user_id", "item_id", "rating", "event_type", "occurred_at", "status", "row"]
    fingerprint = F.sum(F.xxhash64(*columns).cast("decimal(38,0)"))
    later, rejected = verdicts.get("later", 0), verdicts.get("quarantined", 0)
    return {
        "input": sum(verdicts.values()),
        "carried": carried,
        "accepted": verdicts.get("accepted", 0) + later,
        "later": later,
        "quarantined": rejected,
        "reasons": by_source,
        # A sum over the rows' hashes: the same rows give the same number in any order and partitioning.
        "fingerprint": str(events.agg(fingerprint).collect()[0][0]),
    }


def require_few_quarantined(facts: Facts, most: float, folder: str) -> None:
    """Refuse to go on when the share of quarantined rows is above `most`.

    Raises:
        AuditError: naming the share, the commonest reasons and where the rows lie.
    """
    rejected, total = facts["quarantined"], facts["input"]
    if total == 0 or rejected / total <= most:
        return
    reasons = sorted(facts["reasons"].get("events", {}).items(), key=lambda pair: (-pair[1], pair[0]))
    named = ", ".join(f"{reason} {count:,}" for reason, count in reasons[:5])
    raise AuditError(
        f"{rejected:,} of {total:,} input rows ({rejected / total:.1%}) were quarantined, more than "
        f"events.max_quarantined_share = {most:g} allows: {named}. The rows lie in {folder}"
    )


@dataclass(frozen=True)
class Check:
    """One check of the audit: what was measured, and whether it may be published."""

    name: str
    value: float
    limit: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.name} is {self.value:g}, must be {self.limit}"


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
            F.count_if(size != F.size("scores")).alias("unpaired"),
        )
        .collect()[0]
    )
    return (
        _equals("lists", counts["lists"], n_users),
        _equals("distinct users", counts["users"], n_users),
        _at_least(
            "share of users with items",
            counts["filled"] / counts["fillable"] if counts["fillable"] else 1.0,
            settings.min_user_coverage,
        ),
        _at_most(
            "share of lists shorter than they could be",
            counts["short"] / max(n_users, 1),
            settings.max_underfilled_share,
        ),
        _equals("lists with an item twice", counts["repeated"], 0),
        _equals("lists with scores that are no numbers", counts["not_finite"], 0),
        *(() if is_reranked else (_equals("lists not ordered by score", counts["unordered"], 0),)),
        _equals("lists without a score an item", counts["unpaired"], 0),
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


def require_passed(checks: tuple[Check, ...], folder: str) -> None:
    """Refuse to publish when a check failed.

    Raises:
        AuditError: naming the failed checks, and where the refused tables lie.
    """
    failed = [str(check) for check in checks if not check.passed]
    if failed:
        raise AuditError(f"the audit refused to publish: {'; '.join(failed)}. The refused run lies in {folder}")


def _equals(name: str, value: int, wanted: int) -> Check:
    return Check(name, value, f"{wanted}", value == wanted)


def _at_least(name: str, value: float, least: float) -> Check:
    return Check(name, value, f"at least {least:g}", value >= least)


def _at_most(name: str, value: float, most: float) -> Check:
    return Check(name, value, f"at most {most:g}", value <= most)
