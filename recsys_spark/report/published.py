"""A look at what is published: the runs, a user's list, predictions of given pairs; and the way back."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid
from rich.text import Text

from recsys_spark.blockwise.predict import RatingScale, predict_pairs, with_ratings
from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.model_sections import ModelSettings
from recsys_spark.night import kept_runs, scratch_folder
from recsys_spark.report.lists import read_lists
from recsys_spark.scoring import published_items
from recsys_spark.session import open_session
from recsys_spark.sinks.exporting import deliver, forget_in_stores
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.forgotten import FOLDER, forget_user
from recsys_spark.storage.lease import hold_lease
from recsys_spark.storage.paths import new_run_id
from recsys_spark.storage.pointer import current_run
from recsys_spark.storage.publishing import rollback
from recsys_spark.storage.retention import removable_runs, remove_old_runs
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import list_runs, open_run
from recsys_spark.tables import ITEMS, RECOMMENDATIONS, USER_EMBEDDINGS, USERS

if TYPE_CHECKING:
    from recsys_spark.config import Settings


def print_runs(settings: Settings, console: Console) -> None:
    """Print all runs under the root, the newest first."""
    grid = _grid("run date", "run", "state", "started", "published", "builds on")
    for info in reversed(list_runs(_filesystem(settings), settings.storage.root)):
        state = "current" if info.is_current else "withdrawn" if info.is_withdrawn else "published"
        published_at = "" if info.published_at is None else f"{info.published_at:%Y-%m-%d %H:%M:%S}"
        state = state if info.is_published else "unfinished"
        started_at = f"{info.created_at:%Y-%m-%d %H:%M:%S}"
        grid.add_row(str(info.run.run_date), info.run.run_id, state, started_at, published_at, info.run.parent or "")
    console.print(grid)


def roll_back(settings: Settings, run_id: str | None, console: Console) -> None:
    """Point readers at an earlier published run and say which; stores that nights deliver to serve it, too.

    Raises:
        RecsysError: naming the stores that still serve the other run, and the command that finishes each.
    """
    root = settings.storage.root
    run = rollback(_filesystem(settings), root, run_id)
    console.print(f"readers now see run {run.run_id} of {run.run_date}", highlight=False)
    if any(export.deliver for export in settings.exports.values()):
        deliver(open_run(open_session(settings), root, run.run_id), settings, console)


def clean_up(settings: Settings, is_dry: bool, console: Console) -> None:
    """Remove the runs that the settings do not keep, or say which those are.

    Raises:
        LeaseHeldError: when a night works on the root.
    """
    keep, root = kept_runs(settings), settings.storage.root
    filesystem = _filesystem(settings)
    if is_dry:
        removed = removable_runs(filesystem, root, keep)
    else:
        with hold_lease(filesystem, root, new_run_id(), settings.storage.lease_ttl_s):
            removed = remove_old_runs(filesystem, root, keep)
    word = "would be removed" if is_dry else "removed"
    for info in removed:
        state = "published" if info.is_published else "unfinished"
        console.print(f"{word}: {state} run {info.run.run_id} of {info.run.run_date}", highlight=False)
    hint = "" if keep.is_limited else "; neither storage.keep_runs nor storage.keep_days is set"
    console.print(f"{len(removed):,} runs {word}{hint}", highlight=False)


def forget(settings: Settings, user_id: str, console: Console) -> None:
    """Keep a record that a user is to be forgotten, take them out of the stores, and say what still holds them.

    Raises:
        LeaseHeldError: when a night works on the root: it would publish what it has read already.
        RecsysError: naming the stores that could not be asked; the record is kept.
        SettingsError: for an id that is no text.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in user_id):
        raise SettingsError(f"the id {user_id!r} is not UTF-8: no user has it")
    root, filesystem = settings.storage.root, _filesystem(settings)
    with hold_lease(filesystem, root, new_run_id(), settings.storage.lease_ttl_s):
        record = forget_user(filesystem, root, user_id)
        console.print(
            f"user {user_id!r} is forgotten from now on; record {record.user_sha256[:12]} in {root}/{FOLDER}",
            highlight=False,
            markup=False,
        )
        if runs := len(list_runs(filesystem, root)):
            console.print(
                f"{runs:,} runs may hold them: these go once the next night is published and "
                f"storage.grace_hours = {settings.storage.grace_hours:g} have passed",
                highlight=False,
            )
        forget_in_stores(settings, user_id, console)


def print_lists(settings: Settings, user_id: str, console: Console) -> None:
    """Print the published list of a user, with titles where items have them and reasons where lists have them.

    Raises:
        RecsysError: when nothing is published, or the user is not known.
    """
    storage = _current(settings)
    lists = read_lists(storage, storage.read(RECOMMENDATIONS).where(F.col("user_id") == user_id))
    if not lists:
        raise RecsysError(f"user {user_id!r} is not in run {storage.run.run_id} of {storage.run.run_date}")
    items, has_reasons = lists[0].items, any(item.why is not None for item in lists[0].items)
    grid = _grid("rank", "item", "score", "title", *(["why"] if has_reasons else []))
    grid.title = Text(f"{user_id} ({lists[0].tier}), {storage.run.run_date}")
    for rank, item in enumerate(items, start=1):
        texts = [item.item_id, f"{item.score:.4f}", item.title or "", *([item.why or ""] if has_reasons else [])]
        grid.add_row(str(rank), *map(Text, texts))
    console.print(grid)
    if left_out := lists[0].left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
        console.print(f"shorter than it was to be; not listed: {reasons}", highlight=False)


def predict_to(settings: Settings, path: str, output: str | None, console: Console) -> None:
    """Predict the pairs of a file with the published model; print CSV, or write Parquet to `output`."""
    storage = _current(settings)
    pairs = _read_pairs(storage.spark, path)
    with scratch_folder() as storage.scratch:
        vectors, hidden, loss = published_items(storage, settings)
        model = ModelSettings(loss=loss)
        facts = storage.step_details("interactions")
        low, high = facts["value_range"]
        scale = RatingScale(low, high, facts["lowest"], model.is_logistic) if model.predicts_ratings else None
        users, items = storage.read(USERS), storage.read(ITEMS)
        block_users = storage.step_details("matrix")["block_users"]
        scored = predict_pairs(pairs, users, items, storage.read(USER_EMBEDDINGS), vectors, block_users, hidden)
        _deliver(with_ratings(scored, scale), output, console)


def _grid(*names: str) -> Grid:
    """A table that folds what does not fit: an id that is cut is of no use."""
    return Grid(*[Column(name, overflow="fold") for name in names])


def _deliver(predictions: DataFrame, output: str | None, console: Console) -> None:
    if output is None:
        predictions.orderBy("user_id", "item_id").toPandas().to_csv(sys.stdout, index=False)
        return
    try:
        predictions.write.parquet(output)
    except AnalysisException as error:
        raise SettingsError(f"--output {output!r} cannot be written: {str(error).splitlines()[0]}") from error
    console.print(f"predictions lie in {output}", soft_wrap=True, highlight=False)


def _read_pairs(spark: SparkSession, path: str) -> DataFrame:
    reader = spark.read.options(header="true", escape='"')
    try:
        pairs = spark.read.parquet(path) if path.rstrip("/").endswith(".parquet") else reader.csv(path)
    except AnalysisException as error:
        raise SettingsError(f"--pairs {path!r} cannot be read: {str(error).splitlines()[0]}") from error
    missing = {"user_id", "item_id"} - set(pairs.columns)
    if missing:
        found = ", ".join(pairs.columns)
        raise SettingsError(f"--pairs {path!r} has no column {', '.join(sorted(missing))}; it has {found}")
    return pairs.select(F.col("user_id").cast("string"), F.col("item_id").cast("string"))


def _current(settings: Settings) -> RunStorage:
    spark = open_session(settings)
    root = settings.storage.root
    run = current_run(open_filesystem(root, spark), root)
    if run is None:
        raise RecsysError(f"nothing is published under {root} yet: run `recsys-spark run` first")
    return open_run(spark, root, run.run_id)


def _filesystem(settings: Settings) -> FileSystem:
    """The root's file system; with a session, which takes seconds, only where one is needed."""
    root = settings.storage.root
    is_local = root.startswith("file:") or (":" not in root.split("/")[0] and "HADOOP_CONF_DIR" not in os.environ)
    return open_filesystem(root, None if is_local else open_session(settings))
