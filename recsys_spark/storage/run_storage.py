"""Reads and writes the tables of one run: what the jobs call `storage`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql.types import StructType

from recsys_spark.storage.errors import (
    MissingTableError,
    PublishedRunError,
    StorageError,
    TableSchemaError,
)
from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.local_filesystem import file_sizes
from recsys_spark.storage.mapped import Mapped, write_parts
from recsys_spark.storage.parquet import count_rows, read_parquet
from recsys_spark.storage.paths import Run, find_run
from recsys_spark.storage.receipts import (
    Receipt,
    folder_receipt,
    read_receipt,
    remove_written,
    table_receipt,
    write_receipt,
)
from recsys_spark.storage.schemas import conform, null_problem, schema_problems
from recsys_spark.storage.steps import StepLog, driver_peak_bytes
from recsys_spark.tables import Table


class RunStorage:
    """The tables, folders and steps of one run, bound to a Spark session.

    Only the night that holds the lease writes. A table or folder is complete once its receipt is
    written; what has none does not exist for readers and is removed before it is written again.
    `writers` names the step that writes each table, for the message about a missing one. `scratch`
    is a local folder for the jobs to use.
    """

    scratch = Path(tempfile.gettempdir())

    def __init__(
        self, spark: SparkSession, filesystem: FileSystem, run: Run, writers: Mapping[str, str] | None = None
    ) -> None:
        self.spark, self.filesystem, self.run = spark, filesystem, run
        self._writers, self._log = dict(writers or {}), StepLog(filesystem, run)
        self._written: dict[str, int | None] = {}
        self._step_started = time.monotonic()

    def path(self, table: Table | str, run: Run | None = None) -> str:
        """Folder of a table, or of a folder by name, in this run or another."""
        return (run or self.run).table_path(_name(table))

    def exists(self, table: Table | str, run: Run | None = None) -> bool:
        """Whether the table or folder is complete."""
        return read_receipt(self.filesystem, run or self.run, _name(table)) is not None

    def count(self, table: Table, run: Run | None = None) -> int:
        """Rows of a table, as counted when it was written."""
        return self._receipt(table, run).rows or 0

    def write(self, table: Table, frame: DataFrame) -> int:
        """Write the frame as the table and return its rows.

        Columns may come in any order; they are written in the table's. A leftover of an unfinished
        step is removed first, so the frame must not read from the same table of the same run.

        Raises:
            TableSchemaError: for a missing, extra or differently typed column, or a null where none is allowed.
            PublishedRunError: when the run is published, or a finished step has written the table.
        """
        checked = conform(table, frame)
        self._clear(table.name)
        path = self.path(table)
        try:
            _writer(table, checked).mode("errorifexists").parquet(path)
        except PySparkException as error:
            problem = null_problem(error)
            if problem is None:
                raise
            raise TableSchemaError(problem) from error
        rows = count_rows(self.spark, path)
        self._finish(table_receipt(table, rows))
        return rows

    def write_mapped(self, table: Table, mapped: Mapped) -> int:
        """Write what tasks make as the table and return its rows: by the tasks themselves where the root is local.

        A local root is one folder for the driver and all executors. The files of the attempts that Spark accepted are
        moved to their place once all tasks are done; those of other attempts go with the folder they are in. On other
        roots Spark writes: workers have no Hadoop file system.

        Raises:
            TableSchemaError: for a missing, extra or differently typed column.
            StorageError: when the driver does not find a file that a task has written.
            PublishedRunError: when the run is published, or a finished step has written the table.
        """
        folder = self.filesystem.local_path(self.path(table))
        if folder is None:
            return self.write(table, mapped.frame())
        _require_columns(table, mapped.schema)
        self._clear(table.name)
        parts = write_parts(mapped, folder, table.group_rows)
        if not parts:  # not even an empty file says which columns there would be
            return self.write(table, self.spark.createDataFrame([], mapped.schema))
        return self._finish_files(table, sum(part.rows for part in parts))

    def write_files(self, table: Table, folder: Path) -> int:
        """Write Parquet files that the driver made as the table and return its rows.

        Raises:
            TableSchemaError: for a missing, extra or differently typed column.
            PublishedRunError: when the run is published, or a finished step has written the table.
        """
        self._clear(table.name)
        path = self.path(table)
        self.filesystem.copy_from_local(folder, path)
        return self._finish_files(table, count_rows(self.spark, path))

    def read(self, table: Table, run: Run | None = None) -> DataFrame:
        """The table of this run or another. Parquet columns come back nullable.

        Raises:
            MissingTableError: when the table is not complete, naming the step to run.
            TableSchemaError: when it was written with columns that this version does not expect.
        """
        self._require_readable(table, run)
        return read_parquet(self.spark, self.path(table, run), table.schema)

    def read_parent(self, table: Table) -> DataFrame | None:
        """The table of the run this one builds upon; None without a parent, or when the parent never had it."""
        if self.parent is None or not self.filesystem.exists(self.path(table, self.parent)):
            return None
        return self.read(table, self.parent)

    @cached_property
    def parent(self) -> Run | None:
        """The run this one builds upon.

        Raises:
            StorageError: when that run is gone: what builds on it, such as the index, would start anew unnoticed.
        """
        if self.run.parent is None:
            return None
        found = find_run(self.filesystem, self.run.root, self.run.parent)
        if found is None:
            raise StorageError(
                f"run {self.run.run_id} builds on run {self.run.parent}, which is not under {self.run.root} "
                "any more: start a new run"
            )
        return found

    def fetch(self, table: Table, scratch: Path, run: Run | None = None) -> Path:
        """A local folder with the table's Parquet files: its own folder on local roots, else a copy in `scratch`."""
        self._receipt(table, run)
        return self._bring(table.name, scratch, run)

    def shared_folder(self, table: Table) -> Path | None:
        """Where the executors can open the table's files, as the driver can; None on roots that are not local.

        Raises:
            MissingTableError, TableSchemaError: as `read`.
        """
        self._require_readable(table, None)
        return self.filesystem.local_path(self.path(table))

    def upload(self, folder: Path, name: str) -> None:
        """Put a local folder under the run; a half upload does not count as there.

        Raises:
            StorageError: when there is no such folder, or it is empty.
            PublishedRunError: when the run is published, or a finished step has uploaded the folder.
        """
        files = file_sizes(folder)
        if not files:
            raise StorageError(f"folder {folder} holds no file to upload as {name}")
        self._clear(name)
        self.filesystem.copy_from_local(folder, self.path(name))
        self._finish(folder_receipt(name, files))

    def discard(self, name: str) -> None:
        """Remove an uploaded folder that no later step needs.

        Raises:
            PublishedRunError: when the run is published, or a finished step has uploaded the folder.
        """
        self._clear(name)
        self._written.pop(name, None)

    def download(self, name: str, scratch: Path, run: Run | None = None) -> Path:
        """An uploaded folder on this machine, to be read only: its own on local roots, else a copy in `scratch`.

        Raises:
            MissingTableError: when the folder was not uploaded completely.
            StorageError: when it does not hold the files that were uploaded.
        """
        receipt = self._receipt(name, run)
        folder = self._bring(name, scratch, run)
        if (found := file_sizes(folder)) != dict(receipt.files):
            wrong = sorted(set(found.items()) ^ set(receipt.files.items()))[0][0]
            raise StorageError(f"folder {self.path(name, run)} is not as uploaded: see {wrong}; run its step again")
        return folder

    def finish_step(
        self,
        step: str,
        details: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        peak_memory_bytes: int | None = None,
    ) -> None:
        """Record the step, its facts for later steps, and the rows of what was written since the step before.

        Left out, `seconds` is the time since that step, and the memory is the most the driver's Python has held.
        """
        self._require_unpublished()
        record = {
            "seconds": round(time.monotonic() - self._step_started if seconds is None else seconds, 3),
            "peak_memory_bytes": driver_peak_bytes() if peak_memory_bytes is None else peak_memory_bytes,
            "rows": self._written,
            "details": dict(details or {}),
        }
        self._log.add(step, record)
        self._written, self._step_started = {}, time.monotonic()

    def reopen_step(self, step: str) -> None:
        """Let a finished step run again; later steps stay as they are."""
        self._require_unpublished()
        self._log.remove(step)

    def finished_steps(self) -> tuple[str, ...]:
        """Steps that need not run again, in the order they finished."""
        return tuple(self._log.records)

    def step_record(self, step: str) -> dict[str, Any]:
        """A finished step: `seconds`, `peak_memory_bytes`, `rows` by table, `details`. StorageError when unfinished."""
        return self._log.record(step)

    def step_details(self, step: str) -> dict[str, Any]:
        """The facts a finished step recorded. StorageError when it has not finished."""
        return dict(self.step_record(step)["details"])

    def parent_details(self, step: str) -> dict[str, Any]:
        """The facts the step recorded in the run this one builds upon; empty without a parent or without the step."""
        if self.parent is None:
            return {}
        return dict(StepLog(self.filesystem, self.parent).records.get(step, {}).get("details", {}))

    @property
    def is_published(self) -> bool:
        """Whether the run has its manifest, after which nothing in it may change."""
        return self.filesystem.exists(self.run.manifest_path)

    def _receipt(self, table: Table | str, run: Run | None) -> Receipt:
        name, run = _name(table), run or self.run
        receipt = read_receipt(self.filesystem, run, name)
        if receipt is None:
            step = self._writers.get(name)
            remedy = f"run the step {step} first" if step else "run the step that writes it first"
            raise MissingTableError(f"{name} is not there in run {run.run_id} of {run.run_date}: {remedy}")
        return receipt

    def _require_readable(self, table: Table, run: Run | None) -> None:
        problems = schema_problems(table, self._receipt(table, run).struct)
        if problems:
            where = f"table {table.name} of run {(run or self.run).run_id}"
            raise TableSchemaError(f"{where} was written by another version: {'; '.join(problems)}")

    def _require_unpublished(self) -> None:
        if self.is_published:
            raise PublishedRunError(f"run {self.run.run_id} is published and never changes: start a new run")

    def _clear(self, name: str) -> None:
        """Remove what an unfinished step left behind."""
        self._require_unpublished()
        if step := self._log.owner(name):
            raise PublishedRunError(
                f"{name} of run {self.run.run_id} was written by the finished step {step}: "
                "reopen the step or start a new run"
            )
        remove_written(self.filesystem, self.run, name)

    def _finish(self, receipt: Receipt) -> None:
        write_receipt(self.filesystem, self.run, receipt)
        self._written[receipt.name] = receipt.rows

    def _finish_files(self, table: Table, rows: int) -> int:
        _require_columns(table, read_parquet(self.spark, self.path(table)).schema)
        self._finish(table_receipt(table, rows))
        return rows

    def _bring(self, name: str, scratch: Path, run: Run | None) -> Path:
        path = self.path(name, run)
        local = self.filesystem.local_path(path)
        if local is not None:
            return local
        target = scratch / (run or self.run).run_id / name
        shutil.rmtree(target, ignore_errors=True)
        self.filesystem.copy_to_local(path, target)
        return target


def _writer(table: Table, frame: DataFrame) -> DataFrameWriter:
    """Spark's writer, with row groups as the table wants them."""
    if table.group_rows is None:
        return frame.write
    return frame.write.option("parquet.block.row.count.limit", table.group_rows)


def _require_columns(table: Table, found: StructType) -> None:
    problems = schema_problems(table, found)
    if problems:
        raise TableSchemaError(f"table {table.name}: {'; '.join(problems)}")


def _name(table: Table | str) -> str:
    return table if isinstance(table, str) else table.name
