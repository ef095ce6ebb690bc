"""The lists of a user out of an Iceberg table, and out of its history, with the files that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, And, EqualTo, NotEqualTo
from pyiceberg.table import Table

from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.iceberg import properties_of
from recsys_spark.storage.filesystem import FileSystem, entries_of

BRANCH_START = "audit-"
RUN = "run_id="


def forget_in_table(table: Table, user_id: str, filesystem: FileSystem, folder: str) -> int:
    """Replace the files that hold lists of a user, in one commit; give the number of these lists.

    A change that brought a list becomes one that takes it away. Snapshots that hold lists of the user go, and the files
    that only these have. A try that broke off is finished by the next.

    Args:
        table: with `user_id` and, perhaps, `op`; just loaded.
        user_id: whose lists.
        filesystem: that of the folder.
        folder: where the files of the table lie, in a folder a run; nobody else writes there.

    Raises:
        ExportError: when a branch or tag that somebody has made holds lists of the user.
    """
    is_list, head = _lists_of(table, user_id), table.current_snapshot()
    before = {each.snapshot_id: _files(table, each.snapshot_id) for each in table.metadata.snapshots}
    removed = 0 if head is None else _replace_files(table, user_id, is_list, properties_of(head))
    pinned = _expire(table, [number for number in before if table.scan(is_list, snapshot_id=number).count()])
    needed = {path for each in table.metadata.snapshots for path in _files(table, each.snapshot_id)}
    for path in set().union(*before.values()) - needed:
        table.io.delete(path)
    _remove_orphans(needed, filesystem, folder)
    if pinned:
        raise ExportError(f"{'.'.join(table.name())}: {', '.join(pinned)} still holds lists of the user: drop it")
    return removed


def _lists_of(table: Table, user_id: str) -> Any:
    """What selects the lists of a user, not what says that they are gone."""
    equals: Any = EqualTo  # their own types say less than they take
    differs: Any = NotEqualTo
    is_of_user = equals("user_id", user_id)
    has_op = any(field.name == "op" for field in table.schema().fields)
    return And(is_of_user, differs("op", "delete")) if has_op else is_of_user


def _files(table: Table, snapshot_id: int | None = None, rows: Any = None) -> set[str]:
    """Those of a snapshot that may hold such rows; all of them without."""
    scan = table.scan(snapshot_id=snapshot_id) if rows is None else table.scan(rows, snapshot_id=snapshot_id)
    return {task.file.file_path for task in scan.plan_files()}


def _replace_files(table: Table, user_id: str, is_list: Any, properties: Mapping[str, str]) -> int:
    suspects = _files(table, rows=is_list)
    kept, removed = _files(table) - suspects, 0
    for path in sorted(suspects):
        with table.io.new_input(path).open() as file:
            rows = pq.read_table(file)
        rest, count = _without(rows, user_id)
        removed += count
        if len(rest):
            kept.add(_written(table, rest, path) if count else path)
    if removed:
        with table.transaction() as changes:
            changes.delete(AlwaysTrue(), dict(properties))
            changes.add_files(sorted(kept), dict(properties), check_duplicate_files=False)
    return removed


def _without(rows: pa.Table, user_id: str) -> tuple[pa.Table, int]:
    """The rows without lists of a user, and how many these were."""
    is_list = pc.equal(rows.column("user_id"), user_id)
    if "op" not in rows.column_names:
        return rows.filter(pc.invert(is_list)), pc.sum(is_list).as_py()
    is_list = pc.and_(is_list, pc.not_equal(rows.column("op"), "delete"))
    gone = rows.filter(is_list)
    emptied = [
        pa.array(["delete"] * len(gone)) if name == "op"
        else gone.column(name) if name in ("user_id", "run_id", "base_run_id")
        else pa.nulls(len(gone), rows.schema.field(name).type)
        for name in rows.column_names
    ]  # fmt: skip
    told = pa.table(emptied, schema=rows.schema)
    return pa.concat_tables([rows.filter(pc.invert(is_list)), told]), len(gone)


def _written(table: Table, rows: pa.Table, path: str) -> str:
    """A new file beside one."""
    written = f"{path.rpartition('/')[0]}/{uuid4().hex}.parquet"
    with table.io.new_output(written).create() as file:
        pq.write_table(rows, file)
    return written


def _expire(table: Table, snapshot_ids: list[int]) -> list[str]:
    """Remove snapshots, with branches of exports that broke off; give the other branches and tags that keep some."""
    names = [name for name, reference in table.metadata.refs.items() if reference.snapshot_id in snapshot_ids]
    for name in [name for name in names if name.startswith(BRANCH_START)]:
        table.manage_snapshots().remove_branch(name).commit()
    kept = {reference.snapshot_id for reference in table.metadata.refs.values()}
    if expired := [snapshot_id for snapshot_id in snapshot_ids if snapshot_id not in kept]:
        table.maintenance.expire_snapshots().by_ids(expired).commit()
    return [name for name in names if name in table.metadata.refs]


def _remove_orphans(needed: set[str], filesystem: FileSystem, folder: str) -> None:
    """Delete files of runs that no snapshot has: what a try left that broke off.

    Only where all that is needed was met: by another name of the warehouse it would be taken for what is not.
    """
    found = {filesystem.qualify(path): path for path in _run_files(filesystem, folder)}
    if needed <= found.keys():
        for name in found.keys() - needed:
            filesystem.delete(found[name])


def _run_files(filesystem: FileSystem, folder: str) -> Iterator[str]:
    for entry in entries_of(filesystem, folder):
        if entry.is_directory and entry.name.startswith(RUN):
            yield from _files_below(filesystem, f"{folder}/{entry.name}")


def _files_below(filesystem: FileSystem, folder: str) -> Iterator[str]:
    for entry in entries_of(filesystem, folder):
        path = f"{folder}/{entry.name}"
        if entry.is_directory:
            yield from _files_below(filesystem, path)
        elif not entry.name.startswith(("_", ".")):
            yield path
