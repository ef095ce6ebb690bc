"""The samples that trials share: runs that hold no test pair, and what values of settings give on them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, SparkSession
from rich.console import Console

from recsys_spark.audit import Facts
from recsys_spark.config import with_changes
from recsys_spark.errors import RecsysError
from recsys_spark.night import Step
from recsys_spark.sampled_runs import reopen_sample, run_step, sample_settings, say, start_sample
from recsys_spark.search_spaces import Values, sections_of
from recsys_spark.storage.parquet import read_parquet
from recsys_spark.tables import INTERACTIONS, ITEMS, USERS
from recsys_spark.transforms.splits import hold_back_test, take_splits

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

SPLITTING = "interactions"
_OF_ALL_PAIRS = "time"
"""The split that does not follow from ids and a user's own pairs, so that a sample would have another."""


@dataclass(frozen=True)
class Sample:
    """A run whose steps before what is tuned are done."""

    settings: Settings
    run_id: str


def prepare_samples(
    spark: SparkSession,
    settings: Settings,
    shares: Sequence[float],
    run_date: datetime.date,
    steps: Sequence[Step],
    folder: Path,
    console: Console,
) -> list[Sample]:
    """Runs of shares of the users, from 0 to 1, whose test pairs are dropped and whose validation pairs test.

    Args:
        spark: the session.
        settings: the settings to tune.
        shares: of the users, a sample each.
        run_date: the night.
        steps: all before what is tuned, the one that splits the pairs among them.
        folder: where the runs lie.
        console: where it is told.
    """
    changes: dict[str, dict[str, Any]] = {"model": {"tensorboard": None}}
    if not settings.uses_neighbors:
        changes["neighbors"] = {"enabled": False}
    trimmed, ks = with_changes(settings, changes), (settings.tune.k,)
    of_all = None
    if settings.evaluate.split == _OF_ALL_PAIRS and min(shares) < 1:
        # The newest share of a sample's pairs begins at another moment than that of all.
        whole = sample_settings(spark, trimmed, 1.0, folder / "whole", ks)
        names = [step.name for step in steps]
        splitting = steps[: names.index(SPLITTING) + 1]
        of_all = _splits(_run(spark, whole, run_date, splitting, folder / "scratch-whole"))
    prepared = [_without_test(step, of_all) if step.name == SPLITTING else step for step in steps]
    samples = []
    for place, share in enumerate(shares):
        sampled = sample_settings(spark, trimmed, share, folder / f"sample-{place}", ks)
        storage = _run(spark, sampled, run_date, prepared, folder / f"scratch-{place}")
        users, items, pairs = (storage.count(table) for table in (USERS, ITEMS, INTERACTIONS))
        say(console, f"sample {place + 1} of {len(shares)}: {users:,} users, {items:,} items, {pairs:,} interactions")
        samples.append(Sample(sampled, storage.run.run_id))
    return samples


def measure_sample(spark: SparkSession, sample: Sample, values: Values, steps: Sequence[Step], scratch: Path) -> float:
    """The metric of `[tune]` of the lists that the steps make with other values, on the pairs that are measured.

    Raises:
        SettingsError: when the values do not go together.
        RecsysError: when no user has a pair to measure on.
    """
    settings = with_changes(sample.settings, sections_of(values))
    storage = reopen_sample(spark, settings, sample.run_id, steps)
    scratch.mkdir()
    storage.scratch = scratch
    for step in steps:
        run_step(step, storage, settings, is_told=False)
    wanted = settings.recommend.model, settings.tune.metric, settings.tune.k
    for row in storage.step_details(steps[-1].name)["metrics"]:
        if (row["model"], row["metric"], row["k"]) == wanted and row["users"]:
            return float(row["value"])
    raise RecsysError("no user has enough items to set some aside; give more users, or another evaluate.split")


def _run(
    spark: SparkSession, settings: Settings, run_date: datetime.date, steps: Sequence[Step], scratch: Path
) -> RunStorage:
    storage = start_sample(spark, settings, run_date)
    scratch.mkdir()
    storage.scratch = scratch  # stays: executors may ask for its files as long as the session lives
    for step in steps:
        run_step(step, storage, settings, is_told=False)
    return storage


def _splits(storage: RunStorage) -> DataFrame:
    users, items = storage.read(USERS), storage.read(ITEMS)
    pairs = storage.read(INTERACTIONS).join(users, on="user_idx", how="inner").join(items, on="item_idx", how="inner")
    return pairs.select("user_id", "item_id", "split")


def _without_test(step: Step, of_all: DataFrame | None) -> Step:
    """The step, and after it what a tuning may know: `of_all` says how pairs are split where a sample does not."""

    def run(storage: RunStorage, settings: Settings) -> Facts:
        facts = step.run(storage, settings)
        pairs, users, items = map(storage.read, (INTERACTIONS, USERS, ITEMS))
        if of_all is not None:
            pairs = take_splits(pairs, users, items, of_all)
        path = str(storage.scratch / "held-back")
        held_back = hold_back_test(pairs, users, items, settings.evaluate, settings.seed)
        held_back.write.parquet(path)
        count = storage.write(INTERACTIONS, read_parquet(storage.spark, path, INTERACTIONS.schema))
        return facts | {"interactions": count}

    return replace(step, run=run)
