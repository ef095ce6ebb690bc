"""What a night takes over from the run before: kept interactions and the range of its ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.errors import RecsysError
from recsys_spark.tables import EVENTS, INTERACTIONS
from recsys_spark.transforms.interactions import decay_kept

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def kept_interactions(storage: RunStorage, settings: Settings) -> DataFrame | None:
    """The interactions of the run before, aged to this run date; None unless the input is incremental."""
    kept = storage.read_parent(INTERACTIONS) if settings.events.incremental else None
    if kept is None or storage.parent is None:
        return None
    return decay_kept(kept, settings.feedback, (storage.run.run_date - storage.parent.run_date).days)


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
