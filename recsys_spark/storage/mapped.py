"""Tables whose files are written by the tasks that make them, and how these files get to their place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from pyspark.sql import DataFrame
from pyspark.sql.types import StructType

from recsys_spark.storage.errors import StorageError


class Part(Protocol):
    """A file that a task wrote: its name in the folder given, its size."""

    @property
    def name(self) -> str:
        """The name of the file."""
        ...

    @property
    def rows(self) -> int:
        """The rows in the file."""
        ...

    @property
    def bytes(self) -> int:
        """The size of the file."""
        ...


class Mapped(Protocol):
    """A table that tasks can write as Parquet files themselves, into a folder they share with the driver."""

    @property
    def schema(self) -> StructType:
        """The columns."""
        ...

    def frame(self) -> DataFrame:
        """The table, for Spark to write."""
        ...

    def write_parts(self, folder: Path, group_rows: int | None = None) -> Sequence[Part]:
        """Write the table into files of the folder, of so many rows a row group; give those that count."""
        ...


def write_parts(mapped: Mapped, folder: Path, group_rows: int | None = None) -> Sequence[Part]:
    """Have the tasks write into a hidden folder; move what counts up to `folder`, remove the rest.

    Raises:
        StorageError: when the driver does not find a file that a task has written.
    """
    attempts = folder / f"_attempts-{uuid4().hex}"
    attempts.mkdir(parents=True)
    try:
        parts = mapped.write_parts(attempts, group_rows)
        for part in parts:
            _move(attempts, part, folder)
    finally:
        shutil.rmtree(attempts, ignore_errors=True)
    return parts


def _move(attempts: Path, part: Part, folder: Path) -> None:
    written = attempts / part.name
    if not written.exists() or written.stat().st_size != part.bytes:
        raise StorageError(
            f"a task wrote {part.name} with {part.bytes:,} bytes, which the driver does not see in {folder}: "
            "with executors on other hosts, storage.root must be on a file system that all of them mount, "
            "or have a scheme such as hdfs:// or s3a://"
        )
    written.replace(folder / part.name)
