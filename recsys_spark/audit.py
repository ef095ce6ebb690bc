"""What must hold before anything is published: the gate on the input, and what a failed check does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import AuditError

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


def require_passed(checks: tuple[Check, ...], folder: str, forced: str | None = None) -> Facts:
    """What the audit has found, unless a check failed and nobody has said why it may be published all the same.

    Raises:
        AuditError: naming the failed checks, and where the refused tables lie.
    """
    failed = [str(check) for check in checks if not check.passed]
    if failed and forced is None:
        raise AuditError(
            f"the audit refused to publish: {'; '.join(failed)}. The refused run lies in {folder}; "
            "to publish it all the same, say why with --force"
        )
    facts: Facts = {"checks": [asdict(check) for check in checks]}
    return facts | ({"failed": failed, "forced": forced} if failed else {})


def equals(name: str, value: int, wanted: int) -> Check:
    """A count that must be what is wanted."""
    return Check(name, value, f"{wanted}", value == wanted)


def at_least(name: str, value: float, least: float) -> Check:
    """A value that must be this large."""
    return Check(name, value, f"at least {least:g}", value >= least)


def at_most(name: str, value: float, most: float) -> Check:
    """A value that may be this large."""
    return Check(name, value, f"at most {most:g}", value <= most)
