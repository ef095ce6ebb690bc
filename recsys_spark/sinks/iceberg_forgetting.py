"""The lists of a user out of an Iceberg table, and out of its history, which goes with its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo
from pyiceberg.table import Table

from recsys_spark.sinks.errors import ExportError
from recsys_spark.storage.filesystem import FileSystem

BRANCH_START = "audit-"


def forget_in_table(
    table: Table, user_id: str, properties: Mapping[str, str], filesystem: FileSystem, folder: str
) -> int:
    """Replace the files that hold lists of a user, in one commit; give the number of these lists.

    Every other snapshot goes, and the files that only those have. Rows that say that the user is gone stay. A try that
    broke off is finished by the next.

    Args:
        table: with `user_id` and, perhaps, `op`.
        user_id: whose lists.
        properties: for the summary of the new snapshot.
        filesystem: that of the folder.
        folder: where the files of the table lie, in folders of their own.

    Raises:
        ExportError: when a branch or tag, which somebody has made, keeps other snapshots.
    """
    equals: Any = EqualTo  # its own types say less than it takes
    suspects = _files(table, equals("user_id", user_id))
    kept, removed = _files(table) - suspects, 0
    for path in sorted(suspects):
        with table.io.new_input(path).open() as file:
            rows = pq.read_table(file)
        rest = rows.filter(pc.invert(_is_list_of(rows, user_id)))
        removed += len(rows) - len(rest)
        if len(rest):
            kept.add(path if len(rest) == len(rows) else _written(table, rest, path))
    if removed:
        with table.transaction() as changes:
            changes.delete(AlwaysTrue(), dict(properties))
            changes.add_files(sorted(kept), dict(properties), check_duplicate_files=False)
    _expire_others(table)
    _remove_unneeded(table, filesystem, folder)
    if others := [name for name in table.metadata.refs if name != "main"]:
        raise ExportError(f"{'.'.join(table.name())}: {', '.join(others)} may hold them, too: drop it")
    return removed


def _files(table: Table, rows: BooleanExpression | None = None, snapshot_id: int | None = None) -> set[str]:
    """Those that may hold such rows."""
    scan = table.scan(AlwaysTrue() if rows is None else rows, snapshot_id=snapshot_id)
    return {task.file.file_path for task in scan.plan_files()}


def _is_list_of(rows: pa.Table, user_id: str) -> pa.ChunkedArray:
    is_of_user = pc.equal(rows.column("user_id"), user_id)
    if "op" not in rows.column_names:
        return is_of_user
    return pc.and_(is_of_user, pc.not_equal(rows.column("op"), "delete"))


def _written(table: Table, rows: pa.Table, path: str) -> str:
    """A new file beside one."""
    written = f"{path.rpartition('/')[0]}/{uuid4().hex}.parquet"
    with table.io.new_output(written).create() as file:
        pq.write_table(rows, file)
    return written


def _expire_others(table: Table) -> None:
    for name in [name for name in table.metadata.refs if name.startswith(BRANCH_START)]:  # of exports that broke off
        table.manage_snapshots().remove_branch(name).commit()
    held = {reference.snapshot_id for reference in table.metadata.refs.values()}
    others = [each.snapshot_id for each in table.metadata.snapshots if each.snapshot_id not in held]
    if others:
        table.maintenance.expire_snapshots().by_ids(others).commit()


def _remove_unneeded(table: Table, filesystem: FileSystem, folder: str) -> None:
    needed = {path for each in table.metadata.snapshots for path in _files(table, snapshot_id=each.snapshot_id)}
    for path in _data_files(filesystem, folder):
        if filesystem.qualify(path) not in needed:
            filesystem.delete(path)


def _data_files(filesystem: FileSystem, folder: str) -> Iterator[str]:
    for entry in filesystem.list(folder):
        path = f"{folder}/{entry.name}"
        if entry.is_directory:
            yield from _data_files(filesystem, path)
        elif not entry.name.startswith(("_", ".")):
            yield path
