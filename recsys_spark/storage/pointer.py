"""The one pointer that tells readers which run is current."""

from __future__ import annotations

import time
from datetime import date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.storage.errors import MissingTableError, StorageError
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.parquet import read_parquet
from recsys_spark.storage.paths import POINTER, Run, under
from recsys_spark.storage.records import decode, encode, from_iso, to_iso, utc_now
from recsys_spark.tables import Table

_FORMAT_VERSION = 1
_LONGEST_HISTORY = 100
# A store without an atomic PUT (Azure's `abfs`) may show a new file empty for a moment; a broken one stays broken.
_READ_ATTEMPTS, _PAUSE_S = 5, 0.2


def current_run(filesystem: FileSystem, root: str) -> Run | None:
    """The run that readers see; None before the first publication.

    Raises:
        StorageError: when the pointer is there but broken.
    """
    pointer = _read_pointer(filesystem, under(root, POINTER))
    if pointer is None:
        return None
    if pointer.get("format_version") != _FORMAT_VERSION:
        raise StorageError(
            f"{under(root, POINTER)} has format version {pointer.get('format_version')!r}, this code reads "
            f"{_FORMAT_VERSION}: use the release that wrote it or a newer one"
        )
    try:
        return Run(filesystem.qualify(root), date.fromisoformat(pointer["run_date"]), pointer["run_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{under(root, POINTER)} does not name a run: {error}; roll back to repair it") from error


def point_to(filesystem: FileSystem, run: Run) -> None:
    """Make the run current: in one step for every table, whoever is reading."""
    path, now = under(run.root, POINTER), to_iso(utc_now())
    record = {
        "format_version": _FORMAT_VERSION,
        "run_id": run.run_id,
        "run_date": run.run_date.isoformat(),
        "path": run.relative_path,
        "moved_at": now,
        "history": _with_last(_pointer_or_nothing(filesystem, path), run.run_id, now),
    }
    filesystem.replace(path, encode(record))


def read_history(filesystem: FileSystem, root: str) -> tuple[tuple[str, datetime], ...]:
    """The runs that were current before, and until when; the newest first, `_LONGEST_HISTORY` of them."""
    pointer = _read_pointer(filesystem, under(root, POINTER)) or {}
    return tuple((each["run_id"], from_iso(each["until"])) for each in pointer.get("history", []))


def read_current(spark: SparkSession, root: str, table: Table | str) -> DataFrame:
    """A table of the current run, for readers. The pointer is read at every call, the frame stays with its run.

    Raises:
        MissingTableError: when nothing is published yet, or the current run has no such table.
    """
    filesystem = open_filesystem(root, spark)
    name = table if isinstance(table, str) else table.name
    run = current_run(filesystem, root)
    if run is None:
        raise MissingTableError(f"table {name}: no run is published under {root} yet")
    if not filesystem.exists(run.receipt_path(name)):
        raise MissingTableError(f"table {name} is not in the current run {run.run_id} of {run.run_date}")
    return read_parquet(spark, run.table_path(name))


def _with_last(pointer: dict[str, Any], run_id: str, now: str) -> list[dict[str, str]]:
    """The history once the run that was current gives way to another."""
    history = [each for each in pointer.get("history", []) if each["run_id"] != run_id]
    last = pointer.get("run_id")
    if last not in (None, run_id):
        history = [{"run_id": last, "until": now}, *[each for each in history if each["run_id"] != last]]
    return history[:_LONGEST_HISTORY]


def _pointer_or_nothing(filesystem: FileSystem, path: str) -> dict[str, Any]:
    """A pointer that is broken is repaired by the move, and its history is lost."""
    try:
        return _read_pointer(filesystem, path) or {}
    except StorageError:
        return {}


def _read_pointer(filesystem: FileSystem, path: str) -> dict[str, Any] | None:
    for attempt in range(_READ_ATTEMPTS):
        try:
            return decode(filesystem.read_bytes(path), path)
        except FileNotFoundError:
            return None
        except StorageError:
            if attempt == _READ_ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_S)
    return None
