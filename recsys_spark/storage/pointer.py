"""The one pointer that tells readers which run is current."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.storage.errors import MissingTableError, StorageError
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.parquet import read_parquet
from recsys_spark.storage.paths import POINTER, Run, under
from recsys_spark.storage.records import decode, encode, to_iso, utc_now
from recsys_spark.tables import Table

_FORMAT_VERSION = 1
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
    record = {
        "format_version": _FORMAT_VERSION,
        "run_id": run.run_id,
        "run_date": run.run_date.isoformat(),
        "path": run.relative_path,
        "moved_at": to_iso(utc_now()),
    }
    filesystem.replace(under(run.root, POINTER), encode(record))


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
