"""Starting, opening and finding runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark.errors import SettingsError
from recsys_spark.storage.errors import StorageError, UnknownRunError
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.paths import Run, find_run, new_run_id, run_dates, runs_of
from recsys_spark.storage.pointer import current_run
from recsys_spark.storage.provenance import code_version
from recsys_spark.storage.records import decode, encode, from_iso, to_iso, utc_now
from recsys_spark.storage.run_storage import RunStorage


@dataclass(frozen=True)
class RunInfo:
    """A run and how far it got. A withdrawn run was published, and left again by a rollback."""

    run: Run
    created_at: datetime
    published_at: datetime | None
    is_current: bool
    is_withdrawn: bool

    @property
    def is_published(self) -> bool:
        """Whether the run was audited and has its manifest."""
        return self.published_at is not None


def start_run(
    spark: SparkSession,
    root: str,
    run_date: date,
    settings_digest: str,
    seed: int,
    *,
    run_id: str | None = None,
    writers: Mapping[str, str] | None = None,
) -> RunStorage:
    """A new run that builds on the newest published run of an earlier date. Hold the lease of the root before.

    Raises:
        SettingsError: when the root cannot be written, or the run id is not a plain name.
        StorageError: when a run of this id exists.
    """
    filesystem = open_filesystem(root, spark)
    run = Run(filesystem.qualify(root), run_date, new_run_id() if run_id is None else run_id)
    try:
        if find_run(filesystem, root, run.run_id) is not None:
            raise StorageError(f"run {run.run_id} exists under {root}: open it to go on, or choose another id")
        parent = find_parent(filesystem, root, run_date)
        run = replace(run, parent=parent.run_id if parent else None)
        filesystem.create(run.record_path, encode(_record(run, settings_digest, seed)))
    except OSError as error:
        raise SettingsError(f"storage.root {root!r} cannot be written: {error}") from error
    return RunStorage(spark, filesystem, run, writers)


def open_run(
    spark: SparkSession,
    root: str,
    run_id: str,
    settings_digest: str | None = None,
    *,
    writers: Mapping[str, str] | None = None,
) -> RunStorage:
    """A run that was started before: to go on with it, or to read it.

    Raises:
        UnknownRunError: when there is no such run.
        SettingsError: when a digest is given and the run was started with other settings.
    """
    filesystem = open_filesystem(root, spark)
    found = find_run(filesystem, root, run_id)
    if found is None:
        raise UnknownRunError(f"there is no run {run_id} under {root}: list them with recsys-spark list-runs")
    record = read_run_record(filesystem, found)
    if settings_digest is not None and record["settings_digest"] != settings_digest:
        raise SettingsError(
            f"run {run_id} was started with settings {record['settings_digest'][:12]}, "
            f"these are {settings_digest[:12]}: restore them or start a new run"
        )
    run = Run(filesystem.qualify(root), found.run_date, run_id, record["parent"])
    return RunStorage(spark, filesystem, run, writers)


def read_run_record(filesystem: FileSystem, run: Run) -> dict[str, Any]:
    """What the run was started with: run_id, run_date, parent, settings_digest, seed, created_at, code_version.

    Raises:
        StorageError: when the record is missing or broken.
    """
    try:
        record = decode(filesystem.read_bytes(run.record_path), run.record_path)
    except FileNotFoundError as error:
        raise StorageError(
            f"run {run.run_id} has no {run.record_path}: it was never started or is being removed"
        ) from error
    missing = _record(run, "", 0).keys() - record.keys()
    if missing:
        raise StorageError(f"{run.record_path} lacks {', '.join(sorted(missing))}")
    return record


def list_runs(filesystem: FileSystem, root: str) -> tuple[RunInfo, ...]:
    """All runs under a root, by run date, then by start.

    Raises:
        StorageError: when the pointer or the record of a run is broken.
    """
    return runs_under(filesystem, root, current_run(filesystem, root))


def runs_under(filesystem: FileSystem, root: str, current: Run | None = None) -> tuple[RunInfo, ...]:
    """The runs without a look at the pointer, which may be broken."""
    dates = run_dates(filesystem, root)
    return tuple(info for run_date in dates for info in _runs_on(filesystem, root, run_date, current))


def find_parent(filesystem: FileSystem, root: str, run_date: date) -> Run | None:
    """The newest published run of an earlier run date; of several of one date the last published.

    Withdrawn runs are passed over: what made readers leave a run must not live on in the next.
    """
    for earlier in reversed([day for day in run_dates(filesystem, root) if day < run_date]):
        runs = _runs_on(filesystem, root, earlier, current=None)
        usable = [info for info in runs if info.is_published and not info.is_withdrawn]
        if usable:
            return max(usable, key=publication_order).run
    return None


def find_unfinished(filesystem: FileSystem, root: str, run_date: date) -> Run | None:
    """The run to go on with: the last one started for a date, unless it is published."""
    runs = _runs_on(filesystem, root, run_date, current=None)
    return runs[-1].run if runs and not runs[-1].is_published else None


def publication_order(info: RunInfo) -> tuple[date, str]:
    """Sorts published runs: by run date, then by the time of publication."""
    return info.run.run_date, to_iso(info.published_at) if info.published_at else ""


def _runs_on(filesystem: FileSystem, root: str, run_date: date, current: Run | None) -> tuple[RunInfo, ...]:
    """The started runs of a date, by start."""
    started = [run for run in runs_of(filesystem, root, run_date) if filesystem.exists(run.record_path)]
    infos = [_info(filesystem, run, current) for run in started]
    return tuple(sorted(infos, key=lambda info: (info.created_at, info.run.run_id)))


def _info(filesystem: FileSystem, run: Run, current: Run | None) -> RunInfo:
    record = read_run_record(filesystem, run)
    run = Run(filesystem.qualify(run.root), run.run_date, run.run_id, record["parent"])
    return RunInfo(
        run,
        created_at=from_iso(record["created_at"]),
        published_at=_published_at(filesystem, run),
        is_current=current is not None and current.run_id == run.run_id,
        is_withdrawn=filesystem.exists(run.withdrawn_path),
    )


def _published_at(filesystem: FileSystem, run: Run) -> datetime | None:
    try:
        manifest = decode(filesystem.read_bytes(run.manifest_path), run.manifest_path)
        return from_iso(manifest["published_at"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{run.manifest_path} has no valid published_at ({error}); remove the broken run") from error


def _record(run: Run, settings_digest: str, seed: int) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "run_date": run.run_date.isoformat(),
        "parent": run.parent,
        "settings_digest": settings_digest,
        "seed": seed,
        "created_at": to_iso(utc_now()),
        "code_version": code_version(),
    }
