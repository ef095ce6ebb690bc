"""Writes what a task gives as a Parquet file of its own, without handing the rows to the JVM first."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds
from pyspark import TaskContext

from recsys_spark.blockwise.naming import Names, with_dictionaries

WRITTEN = "name string, rows long, bytes long"
ROW_GROUP_BYTES = 16 << 20


class WrittenPart(NamedTuple):
    """A file that a task wrote: its name in the folder, its rows, its size in bytes."""

    name: str
    rows: int
    bytes: int


def write_part(
    batches: Iterator[pa.RecordBatch], folder: Path, names: Names, group_rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Write the batches of this attempt of a task into one file; give a row of `WRITTEN`, or none without a batch.

    The folder is not made: an attempt that begins after it was removed fails, and disturbs nobody.
    Memory: a row group, which is closed when it passes 16 MB or has `group_rows` rows, and its strings.
    """
    context = TaskContext.get()
    number = 0 if context is None else context.partitionId()
    if not folder.is_dir():
        raise not_shared(folder)
    path = folder / f"part-{number:05d}-{secrets.token_hex(8)}.snappy.parquet"
    rows = 0
    for positions in _row_groups(batches):
        group = with_dictionaries(positions, names)
        if rows == 0:
            writer = _open_writer(path, group.schema)
        writer.write_table(group, row_group_size=group_rows)
        rows += group.num_rows
    if rows:
        writer.close()
        yield pa.record_batch([[path.name], [rows], [path.stat().st_size]], names=WrittenPart._fields)


def _open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    flat = [field.name for field in schema if not kinds.is_list(field.type)]  # nobody filters by what is in a list
    # Without Arrow's own schema in the file, which would hand dictionaries instead of strings to readers.
    return pq.ParquetWriter(path, schema, use_dictionary=_repeating(schema), write_statistics=flat, store_schema=False)


def not_shared(path: Path | str) -> FileNotFoundError:
    """The error for what should be there on every host."""
    return FileNotFoundError(
        f"{path} is not there on {socket.gethostname()}: with executors on other hosts than the driver, "
        "storage.root must be on a file system that all of them mount, or have a scheme such as hdfs:// or s3a://"
    )


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns worth a dictionary: ids are, floats cost more with one and take more room."""
    repeating = []
    for field in schema:
        path, kind = field.name, field.type
        while kinds.is_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if kinds.is_dictionary(kind) or (kinds.is_string(kind) and path == field.name):
            repeating.append(path)
    return repeating


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.nbytes for each in held) >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if sum(each.num_rows for each in held):
        yield pa.Table.from_batches(held)
