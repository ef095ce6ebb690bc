"""Between the run that readers saw and tonight's events: how its lists did, and the trend of earlier nights."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.audit import Facts
from recsys_spark.blockwise.files import distribute_array, save_array
from recsys_spark.blockwise.lists import scored_once
from recsys_spark.metrics.measure import Metric, count_training, measure
from recsys_spark.metrics.spread import TrainingCounts
from recsys_spark.report.trend import draw_trend, ndcg_by_night, shown_k, write_trend
from recsys_spark.storage.errors import MissingTableError, StorageError
from recsys_spark.storage.manifest import Manifest, read_manifest
from recsys_spark.storage.parquet import read_parquet
from recsys_spark.storage.paths import Run
from recsys_spark.tables import BACKTEST, INTERACTIONS, ITEMS, RECOMMENDATIONS, USERS, Table
from recsys_spark.transforms.backtest import add_popular, find_new_pairs, gather_items, position_lists, seen_items

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


@dataclass(frozen=True)
class Backtest:
    """Tonight's rows of the table `backtest`, and the facts of the step; without rows they hold a `reason`."""

    facts: Facts
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """The run that readers saw: its lists, what it knew, and the settings that shaped the lists."""

    run: Run
    lists: DataFrame
    interactions: DataFrame
    n_items: int
    published_at: datetime.datetime | None
    top_k: int
    excludes_seen: bool


def measure_published(storage: RunStorage, settings: Settings) -> Backtest:
    """Measure the lists of the run that this night builds on by the pairs of tonight that it did not have.

    Where nothing can be measured the facts say why: a night never fails for it. Memory of the driver: 12 bytes an item,
    and what `measure` takes.
    """
    try:
        published = _read_published(storage, settings)
    except StorageError as error:
        return Backtest({"reason": str(error)})
    facts: Facts = {"lists_run_id": published.run.run_id, "lists_run_date": published.run.run_date.isoformat()}
    pairs = find_new_pairs(storage.read(INTERACTIONS), published.interactions, not published.excludes_seen)
    with scored_once(gather_items(pairs, "relevant_idxs")) as relevant:
        found = relevant.agg(F.count("*").alias("users"), F.sum(F.size("relevant_idxs")).alias("pairs")).collect()[0]
        facts |= {"new_pairs": found["pairs"] or 0, "users_with_new_items": found["users"]}
        if not found["users"]:
            return Backtest({**facts, "reason": f"no user has had anything new since {facts['lists_run_date']}"})
        return _measure(storage, settings, published, relevant, facts)


def with_earlier_nights(storage: RunStorage, rows: list[dict[str, Any]]) -> DataFrame:
    """The rows of tonight after those that the run before holds; none of a run that has none."""
    tonight = storage.spark.createDataFrame(rows, BACKTEST.schema)
    parent = storage.parent
    if parent is None or not _is_there(storage, BACKTEST, parent):
        return tonight.coalesce(1)
    # Not by `storage.read`, which refuses what an earlier version wrote: what has no column yet has nulls, or is lost.
    earlier = read_parquet(storage.spark, storage.path(BACKTEST, parent), BACKTEST.schema)
    for column in BACKTEST.columns:
        if not column.nullable:
            earlier = earlier.where(F.col(column.name).isNotNull())
    return earlier.unionByName(tonight).coalesce(1)


def keep_trend(storage: RunStorage, trend: pa.Table) -> None:
    """Store the trend with the run, in the folder `trend`: `trend.csv`, and `trend.png` once there is a night in it."""
    folder = storage.scratch / "trend"
    folder.mkdir(exist_ok=True)
    write_trend(trend, folder / "trend.csv")
    if trend.num_rows:
        draw_trend(trend, folder / "trend.png")
    storage.upload(folder, "trend")


def headline(trend: pa.Table, run_date: datetime.date) -> Facts:
    """NDCG of tonight's measurement, of popularity beside it, and of the night that measured before; empty without one.

    The lists are of the length that the summary shows: the longest of at most 10.
    """
    k = shown_k(trend, run_date)
    if k is None:
        return {}
    ours, popular = (ndcg_by_night(trend, model, k) for model in ("published", "popularity"))
    facts: Facts = {"k": k, "ndcg": ours[run_date], "popularity_ndcg": popular[run_date]}
    before = max((night for night in ours if night < run_date), default=None)
    if before is not None:
        facts |= {"ndcg_before": ours[before], "measured_before": before.isoformat()}
    return facts


def _read_published(storage: RunStorage, settings: Settings) -> Published:
    """What was published before this night.

    Raises:
        StorageError: saying what is not there, or not as this version writes it.
    """
    run = storage.parent
    if run is None:
        raise MissingTableError("no run of an earlier date is published")
    lists, interactions = (_read_of(storage, table, run) for table in (RECOMMENDATIONS, INTERACTIONS))
    manifest = _manifest_of(storage, run)
    chosen = {} if manifest is None else manifest.settings.get("recommend", {})
    return Published(
        run,
        lists,
        interactions,
        storage.count(ITEMS, run),
        None if manifest is None else manifest.published_at,
        chosen.get("top_k", settings.recommend.top_k),
        chosen.get("exclude_seen", settings.recommend.exclude_seen),
    )


def _read_of(storage: RunStorage, table: Table, run: Run) -> DataFrame:
    if not _is_there(storage, table, run):
        raise MissingTableError(f"{table.name} of run {run.run_id} of {run.run_date} is not there any more")
    return storage.read(table, run)


def _is_there(storage: RunStorage, table: Table, run: Run) -> bool:
    """Whether the receipt and the folder are: retention may have taken the folder alone."""
    return storage.exists(table, run) and storage.filesystem.exists(storage.path(table, run))


def _manifest_of(storage: RunStorage, run: Run) -> Manifest | None:
    """The manifest, or None where it is of another version: then tonight's settings have to do."""
    try:
        return read_manifest(storage.filesystem, run)
    except StorageError:
        return None


def _measure(
    storage: RunStorage, settings: Settings, published: Published, relevant: DataFrame, facts: Facts
) -> Backtest:
    ks = [k for k in settings.evaluate.ks if k <= published.top_k] or [published.top_k]
    # Lists are made by the fit that has learned from all pairs, whatever split they are in.
    learned = published.interactions.withColumn("split", F.lit("train"))
    trained = count_training(learned, published.n_items)
    lists = position_lists(published.lists, relevant, storage.read(USERS), storage.read(ITEMS))
    seen = seen_items(published.interactions, relevant) if published.excludes_seen else None
    ranked = save_array(storage.scratch / "popular.npy", _rank(trained.items))
    with scored_once(add_popular(lists, seen, distribute_array(storage.spark, ranked), max(ks))) as measured:
        tiers = {row["tier"]: row["count"] for row in measured.groupBy("tier").count().collect()}
        users = sum(tiers.values())
        facts |= {"users": users, "users_without_list": facts["users_with_new_items"] - users, "tiers": tiers}
        if not users:
            return Backtest({**facts, "reason": "no user with new items had a list"})
        metrics = list(_metrics(measured, sorted(tiers), ks, trained))
    own = {
        "run_date": storage.run.run_date,
        "lists_run_date": published.run.run_date,
        "lists_run_id": published.run.run_id,
        "lists_published_at": published.published_at,
    }
    return Backtest({**facts, "metrics": metrics}, [own | metric for metric in metrics])


def _metrics(lists: DataFrame, tiers: list[str], ks: list[int], trained: TrainingCounts) -> Iterator[Metric]:
    """Rows as of `metrics`: of all lists, of those of each tier where there are several, and of the most popular."""
    named = {"published": lists}
    if len(tiers) > 1:
        named |= {f"published:{tier}": lists.where(F.col("tier") == tier) for tier in tiers}
    named["popularity"] = lists.select("user_idx", F.col("popular_idxs").alias("item_idxs"), "relevant_idxs")
    for name, each in named.items():
        yield from measure(each, name, ks, trained).rows


def _rank(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """The items that anybody has had, the most popular first, ties by the smaller position."""
    return np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].astype(np.int32)
