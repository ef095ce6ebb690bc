"""What a night takes over from the run before: the index, kept interactions, the range of ratings; who is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import RecsysError
from recsys_spark.sources import read_entities
from recsys_spark.storage.forgotten import read_forgotten
from recsys_spark.tables import EVENTS, INTERACTIONS, USERS, Table
from recsys_spark.transforms.forgotten import forgotten_users, without_forgotten, without_names
from recsys_spark.transforms.interactions import decay_kept

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def kept_interactions(storage: RunStorage, settings: Settings) -> DataFrame | None:
    """The interactions of the run before, aged to this run date; None unless the input is incremental."""
    kept = storage.read_parent(INTERACTIONS) if settings.events.incremental else None
    if kept is None or storage.parent is None:
        return None
    kept = kept.join(forgotten_users(storage.read(USERS)), on="user_idx", how="left_anti")
    return decay_kept(kept, settings.feedback, (storage.run.run_date - storage.parent.run_date).days)


def known_index(storage: RunStorage, table: Table) -> DataFrame | None:
    """The index of the run before, without the names of users who are forgotten; None without a run before."""
    known = storage.read_parent(table)
    return known if known is None or table is not USERS else without_names(known, forgotten_hashes(storage))


def described_entities(storage: RunStorage, settings: Settings) -> dict[str, DataFrame]:
    """The described items and users, those who are forgotten left out."""
    described = read_entities(storage.spark, settings)
    if USERS.name in described:
        described[USERS.name] = without_forgotten(described[USERS.name], "id", forgotten_hashes(storage))
    return described


def forgotten_hashes(storage: RunStorage) -> tuple[str, ...]:
    """The SHA-256 of the ids of all users who are forgotten."""
    return tuple(each.user_sha256 for each in read_forgotten(storage.filesystem, storage.run.root))


def value_range(storage: RunStorage, settings: Settings) -> tuple[float, float]:
    """The values that become 0 and 1.

    Configured, or 0 to the largest event weight (implicit), or the observed range of the ratings (explicit).
    An observed range only ever widens from night to night, so that a rating keeps its meaning.
    """
    feedback = settings.feedback
    if feedback.range is not None:
        return feedback.range
    if feedback.kind == "implicit":
        return 0.0, max(feedback.event_weights.values(), default=1.0)
    accepted = storage.read(EVENTS).where(F.col("status") == "accepted")
    observed = accepted.agg(F.min("rating"), F.max("rating")).collect()[0]
    earlier = storage.parent_details("interactions").get("value_range") or (None, None)
    ends = [value for value in (*observed, *earlier) if value is not None]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def require_interactions(count: int, path: str) -> None:
    """Stop when there is nothing to learn from.

    Raises:
        RecsysError: naming the input.
    """
    if count == 0:
        raise RecsysError(
            f"there are no interactions to learn from: no row of {path} was accepted up to the run date, "
            "and no earlier run kept any"
        )
