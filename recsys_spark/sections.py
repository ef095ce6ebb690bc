"""The sections of the settings, one class each; `config.py` puts them together and loads them."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

EventFormat = Literal["parquet", "csv", "json", "orc", "table", "recbole"]


def _expand(path: str) -> str:
    expanded = os.path.expandvars(Path(path).expanduser().as_posix() if path.startswith("~") else path)
    if "$" in expanded:
        raise ValueError(f"{path!r} names an environment variable that is not set")
    return expanded


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name!r} is not a time zone; use a name such as 'UTC' or 'Europe/Berlin'") from error
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]
SourcePath = Annotated[str, AfterValidator(_expand), Field(min_length=1)]


class Section(BaseModel):
    """Base of every settings section: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(Section):
    """Where runs are written and published."""

    root: SourcePath = Field(
        description="Folder that holds all runs and the pointer to the current one; any path Spark can write."
    )
    lease_ttl_s: int = Field(
        600, ge=10, description="Seconds without a heartbeat after which another night may take over the root."
    )
    keep_runs: int | None = Field(
        None, ge=1, description="Published runs to keep, the newest; older ones are removed after a night. None: all."
    )
    keep_days: int | None = Field(
        None, ge=1, description="Days a run is kept, however many there are. None: as `keep_runs` says."
    )
    grace_hours: float = Field(
        24.0, ge=0, description="Hours a run is kept after readers were pointed to another: some may still read it."
    )


class SparkSettings(Section):
    """The Spark session. Under spark-submit the master comes from there and `master` is ignored."""

    master: str = Field(
        "local[2,4]",
        description="Spark master when not started by spark-submit; `local[cores,retries]` retries a lost worker.",
    )
    driver_memory: str = Field(
        "4g", pattern=r"^\d+[kmgt]$", description="Java heap of the driver when not started by spark-submit."
    )
    shuffle_partitions: int = Field(
        64, ge=1, description="Partitions of a shuffle; a few times the cores of the cluster."
    )
    conf: dict[str, str] = Field(
        default_factory=dict, description="Any further Spark settings, passed through as they are."
    )


class Source(Section):
    """One input in any format Spark reads."""

    path: SourcePath = Field(description="Path, glob, or table name when `format` is `table`.")
    format: EventFormat = Field(
        "parquet", description="`recbole` reads tab-separated atomic files with `name:type` headers."
    )
    options: dict[str, str] = Field(
        default_factory=dict, description="Options of the Spark reader, for example `sep` for CSV."
    )


class EventColumns(Section):
    """Which input column is what."""

    user: str = Field("user_id", description="Column of the user id (string or integer).")
    item: str = Field("item_id", description="Column of the item id (string or integer).")
    rating: str | None = Field(
        None, description="Column of the rating; none means every event counts as its event weight."
    )
    event_type: str | None = Field(None, description="Column of the event type, for example view, cart, purchase.")
    timestamp: str | None = Field(
        None, description="Column of the event time: a timestamp, a date, ISO 8601 text, or a number since the epoch."
    )


class EventSettings(Source):
    """The interactions to learn from."""

    columns: EventColumns = EventColumns()
    incremental: bool = Field(
        False, description="True: the input holds only new events, merged with the interactions kept by the run before."
    )
    timestamp_unit: Literal["s", "ms", "us"] = Field("s", description="Unit of numeric timestamps.")
    timezone: TimeZone = Field("UTC", description="Zone of timestamps that carry none, and of the run date's midnight.")
    earliest: datetime.date = Field(datetime.date(1970, 1, 2), description="Events before this day are quarantined.")
    max_id_bytes: int = Field(
        1024, ge=1, le=65536, description="Longest user or item id, in UTF-8 bytes; longer ones are quarantined."
    )
    max_quarantined_share: float = Field(
        0.05, ge=0, le=1, description="Share of quarantined rows above which the run stops with nothing published."
    )


class EntitySettings(Source):
    """A table of items or users: they exist before their first event."""

    id: str = Field(description="Column of the id.")
    attributes: dict[str, str] = Field(
        default_factory=dict, description="Attributes to keep, name = input column, for example `title`."
    )


class FeedbackSettings(Section):
    """How events become one rating between 0 and 1 for each user-item pair."""

    kind: Literal["explicit", "implicit"] = Field(
        "explicit", description="`explicit`: ratings; `implicit`: weighted events."
    )
    range: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest value, scaled to 0 and 1. None: the observed range of explicit ratings, kept "
        "from night to night; zero to the largest event weight for implicit feedback. Explicit ratings outside are "
        "quarantined, implicit values above it count as the highest: where events of a pair add up (`duplicates`), "
        "give a range above the weight of one.",
    )
    lowest: float = Field(
        0.0, ge=0, lt=1, description="What the lowest explicit rating becomes; above 0 it differs from 'unseen'."
    )
    duplicates: Literal["last", "max", "sum", "mean"] | None = Field(
        None,
        description="One value from several events of a pair. None: `last` for explicit, `sum` for implicit feedback.",
    )
    event_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of each event type; types not listed are quarantined. Empty: all types weigh 1.",
    )
    half_life_days: float | None = Field(
        None, gt=0, description="Age in days at which an implicit event counts half; none means no decay."
    )

    @property
    def duplicate_policy(self) -> str:
        """The policy in force, the default of the kind of feedback filled in."""
        return self.duplicates or ("last" if self.kind == "explicit" else "sum")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must rise from lowest to highest, got {list(self.range)}")
        if any(weight <= 0 for weight in self.event_weights.values()):
            raise ValueError(f"event_weights must be above 0, got {self.event_weights}")
        if self.kind == "explicit" and self.half_life_days is not None:
            raise ValueError("half_life_days applies to implicit feedback only; remove it or set kind = 'implicit'")
        return self


class MatrixSettings(Section):
    """The sparse user-item matrix."""

    block_users: int = Field(1024, ge=1, le=65536, description="Users in a row block. Results do not depend on it.")
    shard_mb: int = Field(1024, ge=1, description="Largest candidate file a task maps. Results do not depend on it.")


class NeighborSettings(Section):
    """Each user's nearest users by exact Euclidean distance."""

    enabled: bool = Field(
        True, description="Whether the night finds neighbors; the work grows with the square of the users."
    )
    k: int | Literal["all"] = Field(
        50, description="Neighbors a user; `all` gives the full distance matrix row by row, up to 20,000 users."
    )
    weighting: Literal["none", "l2", "center", "tfidf", "bm25"] = Field(
        "none",
        description="Weighting of the rows before distances; with `l2` the Euclidean order is the cosine order, "
        "`center` subtracts a user's mean, `tfidf` and `bm25` let items that many have count less.",
    )
    similarity: Literal["inverse", "gaussian"] = Field(
        "inverse", description="`inverse`: 1 / (1 + d); `gaussian`: exp(-d^2 / (2 bandwidth^2))."
    )
    bandwidth: float = Field(1.0, gt=0, description="Bandwidth of the gaussian similarity, in units of distance.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.k != "all" and self.k < 1:
            raise ValueError(f"k must be 1 or more, or 'all', got {self.k}")
        return self


class RecommendSettings(Section):
    """The lists."""

    model: Literal["embedding", "neighbors", "content", "ease", "graph_filter", "hybrid"] = Field(
        "embedding",
        description="What scores the items; `ease`, `graph_filter`: what a user's items say about every item, by a "
        "linear model, for catalogues of up to some ten thousand; `hybrid`: a blend of them, see `[hybrid]`.",
    )
    top_k: int = Field(10, ge=1, le=10_000, description="Items in a list.")
    exclude_seen: bool = Field(True, description="Leave out items the user already has.")
    shrinkage: float = Field(
        1.0, ge=0, description="Pulls neighbor scores that rest on little similarity towards 0 (`neighbors`, explicit)."
    )


class PopularitySettings(Section):
    """What is popular: the lists of users of whom nothing else is known, and what other lists are measured beside."""

    segment: str | None = Field(
        None,
        description="Attribute of `[users]`, such as a country: users of whom nothing else is known get what is "
        "popular with those who share it.",
    )
    min_segment_users: int = Field(
        100, ge=1, description="Fewest users with interactions in a segment; those of smaller ones get the list of all."
    )
    max_segments: int = Field(1_000, ge=1, description="Most segments, the largest first.")
    half_life_days: float | None = Field(
        None, gt=0, description="Age in days at which an interaction counts half; none means no decay."
    )


class SimilarSettings(Section):
    """Lists of similar users and items by embedding distance."""

    users: bool = Field(True, description="Write `similar_users`; the work grows with the square of the users.")
    items: bool = Field(True, description="Write `similar_items`.")
    top_k: int = Field(10, ge=1, le=10_000, description="Entries in a list.")


class EvaluateSettings(Section):
    """The hold-out and the metrics."""

    split: Literal["last", "newest", "time", "random", "fold", "items", "users"] = Field(
        "last",
        description="`last`: each user's last item by time tests, the one before validates; `newest`: the same of a "
        "share of each user's items; `time`: of all pairs those from one moment on; `random`: a share of all pairs; "
        "`fold`: one of `folds` equal parts of them; `items`, `users`: all pairs of a share of the items, of the "
        "users: how well new ones are served.",
    )
    share: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share for testing, and as much again for validation; not of `last`; of `fold` for validation.",
    )
    folds: int = Field(5, ge=2, le=100, description="Parts that the pairs are cut into by `fold`.")
    fold: int = Field(0, ge=0, description="Which of the parts tests, counted from 0.")
    auc_samples: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Items a user has not had that each held-out one is compared with, by the embedding model: the "
        "metric `gauc`. 0 for none.",
    )
    ks: tuple[int, ...] = Field((5, 10, 20), min_length=1, description="List lengths at which metrics are computed.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.ks) < 1 or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"ks must be rising whole numbers from 1, got {list(self.ks)}")
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds = {self.folds}, got {self.fold}")
        return self

    @property
    def needs_times(self) -> bool:
        """Whether what is held out depends on when it was."""
        return self.split in ("last", "newest", "time")


class AuditSettings(Section):
    """What must hold before lists are published; a failed audit ends with exit code 3."""

    min_user_coverage: float = Field(
        0.99, ge=0, le=1, description="Share of users with at least one item, of those who have not had all."
    )
    max_underfilled_share: float = Field(1.0, ge=0, le=1, description="Share of lists shorter than they could be.")
    max_constant_share: float = Field(
        1.0, ge=0, le=1, description="Share of lists of several items whose scores are all the same."
    )
    max_top_items_share: float = Field(
        1.0, ge=0, le=1, description="Share of all list places that the most listed 1 % of the items may take."
    )
    min_overlap: float = Field(
        0.0, ge=0, le=1, description="Mean share of a list that was in the same user's list of the run before."
    )
    max_ndcg_drop: float | None = Field(
        None, ge=0, le=1, description="How much of the hold-out's NDCG of the run before may be lost, as a share of it."
    )
    max_input_age_hours: float | None = Field(
        None, ge=0, description="Hours that the newest event may lie before the end of the run date."
    )
    force: str | None = Field(
        None,
        min_length=1,
        description="Why a run is published whatever the audit finds: what `--force` sets, for one run. Not for files.",
    )


class PlanSettings(Section):
    """What a night may take; `recsys-spark plan` refuses what is over it."""

    worker_memory_mb: int = Field(
        2048, ge=1, description="Private memory of a Python worker; a core has one beside its share of the Java heap."
    )
    driver_memory_mb: int = Field(8192, ge=1, description="Memory of the driver's Python, where the model is trained.")
    disk_gb: float = Field(100.0, gt=0, description="Disk for candidate files, on the driver and on each host.")
    max_hours: float = Field(8.0, gt=0, description="Longest that a step is expected to take.")
