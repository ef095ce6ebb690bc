"""Runs steps: opens or resumes a run under the lease, shows progress, records what each step took, publishes."""

from __future__ import annotations

import datetime
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.audit import Facts
from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.progress import StepUsage, watch_step
from recsys_spark.session import open_session
from recsys_spark.sources import check_inputs
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.forgotten import require_after_forgotten
from recsys_spark.storage.lease import Lease, hold_lease
from recsys_spark.storage.paths import new_run_id
from recsys_spark.storage.publishing import publish
from recsys_spark.storage.records import from_iso
from recsys_spark.storage.retention import Keep, remove_old_runs
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import find_unfinished, open_run, read_run_record, start_run

if TYPE_CHECKING:
    from recsys_spark.config import Settings

WRITERS = {
    "events": "ingest",
    "quarantine": "ingest",
    "users": "index",
    "items": "index",
    "interactions": "interactions",
    "backtest": "backtest",
    "trend": "backtest",
    "user_blocks": "matrix",
    "item_rules": "rules",
    "user_rules": "rules",
    "content_terms": "embed_content",
    "item_content": "embed_content",
    "content": "embed_content",
    "user_neighbors": "neighbors",
    "neighbor_blocks": "neighbors",
    "selection_neighbor_blocks": "neighbors",
    "user_embeddings": "train",
    "selection_embeddings": "train",
    "model": "train",
    "selection": "train",
    "model-neighborhood": "train",
    "selection-neighborhood": "train",
    "model-ease": "train",
    "selection-ease": "train",
    "model-graph_filter": "train",
    "selection-graph_filter": "train",
    "model-vae": "train",
    "selection-vae": "train",
    "model-segments": "train",
    "selection-segments": "train",
    "learning_curve": "train",
    "blend_candidates": "blend",
    "ranker": "blend",
    "metrics": "evaluate",
    "metric_sums": "evaluate",
    "recommendations": "recommend",
    "requested_users": "recommend",
    "similar_users": "similar",
    "similar_items": "similar",
    "audit": "audit",
}
"""The step that writes each table or folder."""


_RAISED = re.compile(r"[A-Za-z_.]*(Error|Exception): ")


@dataclass(frozen=True)
class Step:
    """A step of the night: a name, what runs it, and its sentence."""

    name: str
    run: Callable[[RunStorage, Settings], Facts]
    sentence: str


@dataclass(frozen=True)
class Night:
    """One attempt at one night: its tables, its settings, the lease on the root, and where to print."""

    storage: RunStorage
    settings: Settings
    lease: Lease
    console: Console
    make_current: bool = False


class StepFailedError(RecsysError):
    """A step failed; the message says which, why, and how to go on."""

    def __init__(self, step: str, run_id: str, cause: Exception, is_published: bool = False) -> None:
        reason = str(cause) if isinstance(cause, RecsysError) else _cause(cause)
        outcome = (
            "The run is published, but readers may not be pointed to it yet"
            if is_published
            else "Nothing was published; what was published before stays current"
        )
        super().__init__(
            f"step {step} failed: {reason.rstrip('.')}. {outcome}. "
            f"To go on after mending the cause: recsys-spark run --resume {run_id}"
        )
        self.exit_code = cause.exit_code if isinstance(cause, RecsysError) else 1
        self.is_unexpected = not isinstance(cause, RecsysError)


@contextmanager
def open_night(
    settings: Settings,
    run_date: datetime.date | None,
    console: Console,
    run_id: str | None = None,
    *,
    is_new: bool = True,
    make_current: bool = False,
) -> Iterator[Night]:
    """A night ready to run: inputs checked, lease held, run started or opened again.

    Args:
        settings: the settings.
        run_date: the night; None for today, or for the date of `run_id`.
        console: where to print.
        run_id: the run to go on with.
        is_new: without `run_id`, start a run; otherwise go on with the unfinished run of the date.
        make_current: point readers at the run even when a newer run date is current.

    Raises:
        SettingsError: for a missing input or column, other settings or another date than the run's; nothing is
            written then.
        LeaseHeldError: when another night works on the root.
    """
    spark = open_session(settings)
    check_inputs(spark, settings)
    root = settings.storage.root
    filesystem = open_filesystem(root, spark)
    if run_id is None and not is_new:
        run_id = _unfinished(filesystem, root, run_date or today(settings))
    # Before the lease, which would make the folder of a root that is not there.
    storage = None if run_id is None else _reopen(spark, settings, run_id, run_date)
    new_id = new_run_id()
    with (
        hold_lease(filesystem, root, run_id or new_id, settings.storage.lease_ttl_s) as lease,
        scratch_folder() as scratch,
    ):
        if storage is None:
            storage = start_run(
                spark,
                root,
                run_date or today(settings),
                settings.digest(),
                settings.seed,
                run_id=new_id,
                writers=WRITERS,
            )
        storage.scratch = scratch
        console.print(f"run {storage.run.run_id} for {storage.run.run_date}", highlight=False, soft_wrap=True)
        yield Night(storage, settings, lease, console, make_current)


def perform(step: Step, night: Night) -> None:
    """Run one step, print one line about it, record what it took.

    Raises:
        StepFailedError: naming the step and the cause.
    """
    storage = night.storage
    try:
        with watch_step(step.name, storage.spark.sparkContext, night.console) as usage:
            facts = step.run(storage, night.settings)
        storage.finish_step(step.name, facts, seconds=usage.seconds, peak_memory_bytes=usage.peak_memory_bytes)
    except Exception as error:
        raise StepFailedError(step.name, storage.run.run_id, error) from error
    rows = storage.step_record(step.name)["rows"]
    written = ", ".join(f"{table} {count:,}" for table, count in rows.items() if count is not None)
    _print_line(night, step.name, usage, written)


def publish_run(night: Night) -> None:
    """Write the manifest and move the pointer, unless the run is a backfill of an older date.

    Raises:
        StepFailedError: with the cause; readers still see what they saw before.
    """
    storage = night.storage
    try:
        with watch_step("publish", None, night.console) as usage:
            is_current = publish(
                storage,
                night.settings,
                input_snapshot=storage.step_details("ingest"),
                metrics={"metrics": storage.step_details("evaluate")["metrics"]},
                lease=night.lease,
                move_pointer=True if night.make_current else None,
            )
    except Exception as error:
        raise StepFailedError("publish", storage.run.run_id, error, _is_published(storage)) from error
    _print_line(night, "publish", usage, "now current" if is_current else "published; a newer run date stays current")
    _remove_old_runs(night)


def kept_runs(settings: Settings) -> Keep:
    """Which runs the settings keep."""
    chosen = settings.storage
    return Keep(chosen.keep_runs, chosen.keep_days, datetime.timedelta(hours=chosen.grace_hours))


def parse_run_date(text: str | None) -> datetime.date | None:
    """A run date from ISO text; None stays None.

    Raises:
        SettingsError: naming the text and the form wanted.
    """
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--run-date {text!r} is not a date of the form 2026-11-22") from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A local folder for files that executors fetch; those that join late fetch all, so it lives all night."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-spark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def today(settings: Settings) -> datetime.date:
    """The date where the events are from."""
    return datetime.datetime.now(ZoneInfo(settings.events.timezone)).date()


def _remove_old_runs(night: Night) -> None:
    """What cannot be removed tonight is tried again after the next night: the lists are out, and that counts."""
    try:
        removed = remove_old_runs(night.storage.filesystem, night.storage.run.root, kept_runs(night.settings))
    except (OSError, RecsysError) as error:
        night.console.print(f"old runs were not all removed: {error}", highlight=False, soft_wrap=True)
        return
    if removed:
        night.console.print(f"{len(removed):,} old runs removed", highlight=False)


def _unfinished(filesystem: FileSystem, root: str, run_date: datetime.date) -> str:
    run = find_unfinished(filesystem, root, run_date)
    if run is None:
        raise SettingsError(
            f"{root} has no unfinished run of {run_date}: start one with the step ingest, or name a run id"
        )
    return run.run_id


def _reopen(spark: SparkSession, settings: Settings, run_id: str, run_date: datetime.date | None) -> RunStorage:
    storage = open_run(spark, settings.storage.root, run_id, settings.digest(), writers=WRITERS)
    created_at = from_iso(read_run_record(storage.filesystem, storage.run)["created_at"])
    require_after_forgotten(storage.filesystem, settings.storage.root, run_id, created_at)
    if run_date not in (None, storage.run.run_date):
        raise SettingsError(f"run {run_id} is of {storage.run.run_date}, not of --run-date {run_date}")
    return storage


def _is_published(storage: RunStorage) -> bool:
    """Whether the manifest is there, as far as a storage that may just have failed can tell."""
    try:
        return storage.is_published
    except Exception:
        return False


def _print_line(night: Night, name: str, usage: StepUsage, text: str) -> None:
    memory = f"{usage.peak_memory_bytes / 2**20:7,.0f} MB"
    night.console.print(f"{name:<13} {usage.seconds:7.1f} s {memory}  {text}", highlight=False, soft_wrap=True)


def _cause(error: Exception) -> str:
    """The line of a failure that says most: the raised error itself, not the frames that led to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return f"{type(error).__name__}: {(raised or lines or [''])[0]}"
