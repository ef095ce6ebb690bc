"""What there is to learn from: sizes, sparsity, cold users and items, ratings, times, attributes of items."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import Row, SparkSession

from recsys_spark.continuity import require_interactions
from recsys_spark.sources import read_entities, read_events, readable
from recsys_spark.transforms.events import check_events
from recsys_spark.transforms.survey import REJECTED, survey_attributes, survey_events

if TYPE_CHECKING:
    from recsys_spark.config import Settings


@dataclass(frozen=True)
class Side:
    """The users, or the items: how many are known, have interactions, have few or enough to validate with.

    `in_order` have interactions at different times; `median`: interactions of those that have some.
    """

    known: int
    active: int
    few: int
    validated: int
    in_order: int
    median: int

    @property
    def cold_share(self) -> float:
        """Of the known ones, those without an interaction."""
        return 1 - self.active / max(self.known, 1)

    @property
    def few_share(self) -> float:
        """Of the known ones, those with few interactions or none."""
        return self.few / max(self.known, 1)


@dataclass(frozen=True)
class Attribute:
    """An attribute of items: the share of them that has it, words in the mean, the share that is numbers alone."""

    name: str
    filled_share: float
    words: float
    numeric_share: float
    distinct_share: float


@dataclass(frozen=True)
class Survey:
    """What the inputs hold. `ratings`: the lowest and the highest; None without any."""

    users: Side
    items: Side
    interactions: int
    events: int
    rejected: int
    ratings: tuple[float, float] | None
    has_times: bool
    attributes: tuple[Attribute, ...]

    @property
    def density(self) -> float:
        """Share of the pairs of users and items that have interactions that are there."""
        return self.interactions / max(self.users.active * self.items.active, 1)

    @property
    def ratings_vary(self) -> bool:
        """Whether there are different ratings."""
        return self.ratings is not None and self.ratings[0] < self.ratings[1]

    @property
    def ordered_share(self) -> float:
        """Share of the users with interactions whose interactions are of different times."""
        return self.users.in_order / max(self.users.active, 1)


def survey_inputs(spark: SparkSession, settings: Settings) -> Survey:
    """Look at all inputs of the settings, the events once; nothing is written.

    Raises:
        SettingsError: for a path, table or column that is not there, or a column that cannot hold what it should.
        RecsysError: when a file is broken, or no row is fit to learn from.
    """
    now = datetime.datetime.now(datetime.UTC)
    checked = check_events(read_events(spark, settings.events), settings.events, settings.feedback, now.date(), now)
    described = read_entities(spark, settings)
    with readable("events, items or users"):
        rows = {row["kind"]: row for row in survey_events(checked, described).collect()}
    users = rows.get("users")
    require_interactions(0 if users is None else users["pairs"], settings.events.path)
    assert users is not None  # noqa: S101 - there are interactions
    return Survey(
        users=_side(users),
        items=_side(rows["items"]),
        interactions=users["pairs"],
        events=users["events"],
        rejected=rows[REJECTED]["events"] if REJECTED in rows else 0,
        ratings=None if users["lowest"] is None else (users["lowest"], users["highest"]),
        has_times=settings.events.columns.timestamp is not None,
        attributes=_attributes(spark, settings),
    )


def _side(row: Row) -> Side:
    counts = row.asDict()
    return Side(*(counts[name] for name in ("known", "active", "few", "validated", "in_order", "median")))


def _attributes(spark: SparkSession, settings: Settings) -> tuple[Attribute, ...]:
    if settings.items is None or not settings.items.attributes:
        return ()
    names = tuple(settings.items.attributes)
    with readable("items"):
        (row,) = survey_attributes(read_entities(spark, settings)["items"], names).collect()
    return tuple(_attribute(name, row[name], row["rows"]) for name in names)


def _attribute(name: str, found: Row, rows: int) -> Attribute:
    filled = max(found["filled"], 1)
    return Attribute(
        name,
        filled_share=found["filled"] / max(rows, 1),
        words=found["words"] or 0.0,
        numeric_share=found["numeric"] / filled,
        distinct_share=min(found["distinct"] / filled, 1.0),
    )
