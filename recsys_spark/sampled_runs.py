"""Runs on a sample of the users, in a temporary root: what comparing models and tuning one have in common."""

from __future__ import annotations

import datetime
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.config import with_changes
from recsys_spark.errors import RecsysError
from recsys_spark.night import WRITERS, Step, today
from recsys_spark.progress import watch_step
from recsys_spark.sources import read_events, read_source, readable
from recsys_spark.storage.runs import open_run, start_run
from recsys_spark.transforms.sampling import keep_users

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

_SUBMITTED = ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET")


@dataclass(frozen=True)
class _Failure:
    message: str
    exit_code: int


def run_apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What the work gives, done in a process of its own, which ends with it.

    Raises:
        RecsysError: when the work fails, or its process is killed.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            outcome = pool.submit(_guarded, work, *arguments).result()
        except BrokenProcessPool as error:
            raise RecsysError("its process was killed; memory may have run out") from error
    if isinstance(outcome, _Failure):
        failure = RecsysError(outcome.message)
        failure.exit_code = outcome.exit_code
        raise failure
    return outcome


def _guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    leave_submission()
    try:
        return work(*arguments)
    except RecsysError as error:
        return _Failure(str(error), error.exit_code)
    except Exception as error:
        traceback.print_exc()
        return _Failure(problem_of(error), 1)


def leave_submission() -> None:
    """Let this process have a session of its own in local mode, even where spark-submit has started it."""
    for name in _SUBMITTED:
        os.environ.pop(name, None)


def problem_of(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, RecsysError):
        return str(error)
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def sample_settings(spark: SparkSession, settings: Settings, share: float, folder: Path, ks: Iterable[int]) -> Settings:
    """The settings on a temporary root, and on files of a share of the users where it is below 1.

    Args:
        spark: the session.
        settings: the settings of the night.
        share: of the users, drawn by a hash of their id: a smaller share is part of a larger one.
        folder: what is written lies there; no other sample may.
        ks: lengths of lists to measure, beside those of the settings.
    """
    changes: dict[str, dict[str, Any]] = {
        "storage": {"root": str(folder / "root")},
        "events": {"incremental": False},
        "evaluate": {"ks": sorted({*settings.evaluate.ks, *ks})},
    }
    if share < 1:
        raw = {"events": (read_events(spark, settings.events), settings.events.columns.user)}
        if settings.users is not None:
            raw["users"] = read_source(spark, settings.users, "users"), settings.users.id
        for section, (rows, column) in raw.items():
            path = str(folder / section)
            with readable(section):
                keep_users(rows, column, share, settings.seed).write.parquet(path)
            changes[section] = changes.get(section, {}) | {"path": path, "format": "parquet", "options": {}}
    return with_changes(settings, changes)


def start_sample(spark: SparkSession, settings: Settings, run_date: datetime.date | None) -> RunStorage:
    """A run in the temporary root of a sample."""
    date = run_date or today(settings)
    return start_run(spark, settings.storage.root, date, settings.digest(), settings.seed, writers=WRITERS)


def reopen_sample(spark: SparkSession, settings: Settings, run_id: str, steps: Iterable[Step]) -> RunStorage:
    """The run of a sample, where these steps may run again."""
    storage = open_run(spark, settings.storage.root, run_id, writers=WRITERS)
    for step in reversed(list(steps)):
        storage.reopen_step(step.name)
    return storage


def run_step(step: Step, storage: RunStorage, settings: Settings, *, is_told: bool = True) -> float:
    """Run it and record it; its seconds, which are told on standard error."""
    console = Console(stderr=True, emoji=False)
    with watch_step(step.name, storage.spark.sparkContext, console) as usage:
        facts = step.run(storage, settings)
    storage.finish_step(step.name, facts, seconds=usage.seconds, peak_memory_bytes=usage.peak_memory_bytes)
    if is_told:
        say(console, f"  {step.name:<13} {usage.seconds:7.1f} s")
    return usage.seconds


def say(console: Console, text: str) -> None:
    """Print a line at once, as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    sys.stderr.flush()
