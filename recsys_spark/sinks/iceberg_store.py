"""Iceberg as the driver sees it: Spark writes Parquet, a branch takes the files, is counted, and becomes main.

No jar: pyiceberg registers the files. Readers of `main` see the run before until it is set to the branch's snapshot,
in one commit, which fails when someone else has moved it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.table import Table
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from recsys_spark.errors import RecsysError
from recsys_spark.export_sections import IcebergExport
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.iceberg import RUN_DATE, RUN_ID, run_of
from recsys_spark.sinks.iceberg_changes import ENDING, append_changes, remove_old_changes
from recsys_spark.sinks.iceberg_forgetting import BRANCH_START, RUN, forget_in_table
from recsys_spark.sinks.stores import base_run, count_lists, first_line, lists_of, reason_of
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.lease import hold_lease
from recsys_spark.storage.run_storage import RunStorage

_LEASE_TTL_S = 600
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("tier", pa.string()),
    ]
)


class IcebergStore:
    """Lists in an Iceberg table."""

    def __init__(self, export: IcebergExport) -> None:
        self._export = export

    def check(self) -> None:
        """Ask the catalog."""
        self._table()

    def served_run(self, spark: SparkSession) -> str | None:
        """What the snapshot of main says."""
        table = self._table()
        return None if table is None else run_of(table.current_snapshot())

    def write(self, storage: RunStorage) -> str:
        """Write the files, put them on a branch, count, forget what is old, make the branch main."""
        run_id = storage.run.run_id
        with self._explained():
            filesystem = open_filesystem(self._export.warehouse, storage.spark)
            with hold_lease(filesystem, self._folder, run_id, _LEASE_TTL_S):
                table = self._table() or self._create()
                branch = self._audited(table, storage, self._write_files(storage, filesystem))
                kept = self._forget_old(table, filesystem)
                if self._export.delta:
                    self._write_changes(table, storage, filesystem, kept)
                table.manage_snapshots().set_current_snapshot(ref_name=branch).remove_branch(branch).commit()
        return f"in {self._export.table}, snapshot {table.metadata.current_snapshot_id}"

    def forget(self, spark: SparkSession, user_id: str) -> int:
        """Out of the table and that of changes, with the snapshots that hold them."""
        with self._explained():
            if self._table() is None:
                return 0
            filesystem = open_filesystem(self._export.warehouse, spark)
            with hold_lease(filesystem, self._folder, "forget", _LEASE_TTL_S):
                removed, refused = 0, []
                for name, folder in ((self._export.table, self._folder), (self._export.table + ENDING, self._changes)):
                    table = self._named(name)
                    try:
                        removed += 0 if table is None else forget_in_table(table, user_id, filesystem, folder)
                    except ExportError as error:  # the other table is to forget, too
                        refused.append(str(error))
                if refused:
                    raise ExportError(". ".join(refused))
                return removed

    def _audited(self, table: Table, storage: RunStorage, files: list[str]) -> str:
        """A branch that starts at main and has all lists of the run, and no others."""
        run, main, branch = storage.run, table.current_snapshot(), f"{BRANCH_START}{storage.run.run_id}"
        if main is None:
            raise ExportError(f"{self._export.table} has no snapshot: drop the table, and it is made anew")
        if branch in table.metadata.refs:  # of an export that broke off
            table.manage_snapshots().remove_branch(branch).commit()
        table.manage_snapshots().create_branch(main.snapshot_id, branch).commit()
        properties = {RUN_ID: run.run_id, RUN_DATE: run.run_date.isoformat()}
        with table.transaction() as changes:
            changes.delete(AlwaysTrue(), properties, branch=branch)
            changes.add_files(files, properties, check_duplicate_files=False, branch=branch)
        head = table.snapshot_by_name(branch)
        held = 0 if head is None else table.scan(snapshot_id=head.snapshot_id).count()
        if held != (users := count_lists(storage)):
            raise ExportError(f"branch {branch} of {self._export.table} has {held:,} users, run {run.run_id} {users:,}")
        return branch

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever goes wrong is an ExportError."""
        try:
            yield
        except ExportError:
            raise
        except RecsysError as error:
            raise ExportError(str(error).replace("storage.root", "warehouse")) from error
        except Exception as error:  # catalogs and object stores fail in ways of their own
            reason = (
                reason_of(error)
                if isinstance(error, PySparkException)
                else f"{type(error).__name__}: {first_line(error)}"
            )
            raise ExportError(f"{self._export.table}: {reason}") from error

    def _catalog(self) -> Catalog:
        properties = {"warehouse": self._export.warehouse}
        if self._export.catalog_uri is not None:
            properties["uri"] = self._export.catalog_uri
        return load_catalog(self._export.catalog, **properties)

    def _table(self) -> Table | None:
        """None when it is not there yet."""
        return self._named(self._export.table)

    def _named(self, name: str) -> Table | None:
        try:
            return self._catalog().load_table(name)
        except NoSuchTableError:
            return None
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ExportError(
                f"the catalog {self._export.catalog!r} cannot be read: {reason}; look at catalog_uri"
            ) from error

    def _create(self) -> Table:
        """With an empty first snapshot: branches start from one."""
        catalog = self._catalog()
        catalog.create_namespace_if_not_exists(self._export.table.partition(".")[0])
        table = catalog.create_table_if_not_exists(self._export.table, schema=SCHEMA)
        if table.current_snapshot() is None:
            table.append(SCHEMA.empty_table())
        return table

    @property
    def _folder(self) -> str:
        """Where the files of all runs lie; not in the table's own folder, which catalogs may sweep."""
        return f"{self._export.warehouse.rstrip('/')}/recsys_spark-{self._export.table}"

    def _write_files(self, storage: RunStorage, filesystem: FileSystem) -> list[str]:
        folder = f"{self._folder}/{RUN}{storage.run.run_id}"
        filesystem.delete(folder)
        lists_of(storage).write.parquet(folder)
        names = [entry.name for entry in filesystem.list(folder) if not entry.name.startswith(("_", "."))]
        return [filesystem.qualify(f"{folder}/{name}") for name in names]

    def _write_changes(self, table: Table, storage: RunStorage, filesystem: FileSystem, kept: set[str]) -> None:
        """What changes from the run that is served, where there is one, into a table of its own."""
        base, catalog, folder = base_run(storage, run_of(table.current_snapshot())), self._catalog(), self._changes
        if base is None:
            return
        options = self._export.table, SCHEMA, storage, base, filesystem, folder, self._export.delta_scores
        append_changes(catalog, *options)
        remove_old_changes(catalog.load_table(f"{self._export.table}{ENDING}"), kept, filesystem, folder)

    @property
    def _changes(self) -> str:
        return f"{self._folder}{ENDING}"

    def _forget_old(self, table: Table, filesystem: FileSystem) -> set[str]:
        """Expire the snapshots of all but the newest runs and what is served, then remove their files; who is left."""
        served = table.current_snapshot()
        snapshots = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.timestamp_ms, reverse=True)
        runs = list(dict.fromkeys(run_of(snapshot) for snapshot in snapshots if run_of(snapshot) is not None))
        kept = {*runs[: self._export.keep], run_of(served)}  # of no run is the first snapshot, while it is served
        old = [snapshot.snapshot_id for snapshot in snapshots if run_of(snapshot) not in kept]
        if old:
            table.maintenance.expire_snapshots().by_ids(old).commit()
        for entry in filesystem.list(self._folder):
            if entry.name.startswith(RUN) and entry.name.removeprefix(RUN) not in kept:
                filesystem.delete(f"{self._folder}/{entry.name}")
        return {run for run in kept if run is not None}
