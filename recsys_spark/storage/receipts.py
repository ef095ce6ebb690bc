"""Receipts: the small files that say that a table or folder of a run is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pyspark.sql.types import StructType

from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.filesystem import FileSystem, entries_of
from recsys_spark.storage.paths import Run
from recsys_spark.storage.records import decode, encode, to_iso, utc_now
from recsys_spark.tables import Table


@dataclass(frozen=True)
class Receipt:
    """What was written: `rows` and `schema` of a table, `files` (relative path to bytes) of a folder."""

    name: str
    kind: Literal["table", "folder"]
    rows: int | None = None
    schema: Mapping[str, Any] | None = None
    is_published: bool = False
    files: Mapping[str, int] = field(default_factory=dict)
    written_at: str = ""

    @property
    def struct(self) -> StructType:
        """The columns of a table as they were when it was written."""
        return StructType.fromJson(dict(self.schema or {"fields": []}))


def table_receipt(table: Table, rows: int) -> Receipt:
    """The receipt of a table."""
    schema = json.loads(table.schema.json())
    return Receipt(table.name, "table", rows, schema, table.published, written_at=to_iso(utc_now()))


def folder_receipt(name: str, files: Mapping[str, int]) -> Receipt:
    """The receipt of a folder of files."""
    return Receipt(name, "folder", files=files, written_at=to_iso(utc_now()))


def write_receipt(filesystem: FileSystem, run: Run, receipt: Receipt) -> None:
    """From here on the table or folder counts as complete."""
    filesystem.replace(run.receipt_path(receipt.name), encode(asdict(receipt)))


def read_receipt(filesystem: FileSystem, run: Run, name: str) -> Receipt | None:
    """The receipt of a table or folder; None when it is missing or unfinished."""
    path = run.receipt_path(name)
    try:
        content = filesystem.read_bytes(path)
    except FileNotFoundError:
        return None
    try:
        return Receipt(**decode(content, path))
    except TypeError as error:
        raise StorageError(f"{path} is not a receipt of this version: {error}") from error


def read_receipts(filesystem: FileSystem, run: Run) -> tuple[Receipt, ...]:
    """Every receipt of a run, by name."""
    folder = run.receipt_path("x").rpartition("/")[0]
    entries = entries_of(filesystem, folder)
    names = [entry.name.removesuffix(".json") for entry in entries if not entry.name.startswith((".", "_"))]
    receipts = (read_receipt(filesystem, run, name) for name in names)
    return tuple(receipt for receipt in receipts if receipt is not None)


def remove_written(filesystem: FileSystem, run: Run, name: str) -> None:
    """Take a table or folder away, its receipt first, so that it never looks complete while it goes."""
    filesystem.delete(run.receipt_path(name))
    filesystem.delete(run.table_path(name))
