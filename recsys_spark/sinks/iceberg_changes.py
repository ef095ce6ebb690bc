"""Changes beside an Iceberg table: `<table>_changes` has what turns the lists of one run into those of another.

Rows: `op`, `user_id`, `item_ids`, `scores`, `tier` as in deltas of files, `run_id` and `base_run_id`. They are appended
before the run is served: what is served can always be followed, and what was never served has rows that nobody needs.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, EqualTo, NotIn
from pyiceberg.table import Table
from pyspark.sql import functions as F

from recsys_spark.sinks.changes import changed_lists
from recsys_spark.sinks.iceberg import BASE_RUN_ID, RUN_ID
from recsys_spark.sinks.stores import lists_of
from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.paths import Run
from recsys_spark.storage.run_storage import RunStorage

ENDING = "_changes"
# Expressions are `Any` here: their own types say less than they take.
_NAMES = ("op", "user_id", "item_ids", "scores", "tier", "run_id", "base_run_id")


def append_changes(
    catalog: Catalog, name: str, lists: pa.Schema, storage: RunStorage, base: Run, filesystem: FileSystem, folder: str,
    with_scores: bool,
) -> None:  # fmt: skip
    """Append what changed from the lists of `base` to those of the run, unless it is there already.

    Args:
        catalog: where the table is, or is made.
        name: of the table of lists.
        lists: its schema.
        storage: the run.
        base: the run that is served.
        filesystem: that of the folder.
        folder: where files of changes go.
        with_scores: whether another score is a change.
    """
    table = catalog.create_table_if_not_exists(f"{name}{ENDING}", schema=_schema(lists))
    if _has_changes(table, storage.run, base):
        return
    path = f"{folder}/run_id={storage.run.run_id}/base={base.run_id}"
    filesystem.delete(path)
    changes = changed_lists(lists_of(storage), lists_of(storage, base), with_scores)
    ids = F.lit(storage.run.run_id).alias("run_id"), F.lit(base.run_id).alias("base_run_id")
    changes.select("*", *ids).select(*_NAMES).write.parquet(path)
    names = [entry.name for entry in filesystem.list(path) if not entry.name.startswith(("_", "."))]
    properties = {RUN_ID: storage.run.run_id, BASE_RUN_ID: base.run_id}
    files = [filesystem.qualify(f"{path}/{each}") for each in names]
    table.add_files(files, properties, check_duplicate_files=False)


def remove_old_changes(table: Table, kept: set[str], filesystem: FileSystem, folder: str) -> None:
    """Take out the changes to runs that are not kept, with the snapshots and files that held them."""
    others: Any = NotIn
    table.delete(others("run_id", kept))
    current = table.current_snapshot()
    served = None if current is None else current.snapshot_id
    old = [each.snapshot_id for each in table.metadata.snapshots if each.snapshot_id != served]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()
    for entry in filesystem.list(folder):
        if entry.name.removeprefix("run_id=") not in kept:
            filesystem.delete(f"{folder}/{entry.name}")


def _schema(lists: pa.Schema) -> pa.Schema:
    texts = [pa.field(name, pa.string()) for name in ("op", "run_id", "base_run_id")]
    fields = {field.name: field for field in [*lists, *texts]}
    return pa.schema([fields[name] for name in _NAMES])


def _has_changes(table: Table, run: Run, base: Run) -> bool:
    """Whether an earlier export has appended them; where nothing had changed only its snapshot tells."""
    summaries = [snapshot.summary for snapshot in table.metadata.snapshots if snapshot.summary is not None]
    if any((each.get(RUN_ID), each.get(BASE_RUN_ID)) == (run.run_id, base.run_id) for each in summaries):
        return True
    equals: Any = EqualTo
    return table.scan(And(equals("run_id", run.run_id), equals("base_run_id", base.run_id)), limit=1).count() > 0
