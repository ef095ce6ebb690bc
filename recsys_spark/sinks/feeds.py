"""Feeds of files, JSON Lines or CSV: all lists of a run, what changed since the run before, one pointer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.export_sections import FilesExport
from recsys_spark.sinks.changes import changed_lists, one_line_an_item
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.feed_forgetting import forget_in_feed
from recsys_spark.sinks.files import DELTA, DONE, POINTER
from recsys_spark.sinks.options import now_iso
from recsys_spark.sinks.stores import base_run, count_lists, lists_of, reason_of
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.forgotten import read_forgotten
from recsys_spark.storage.lease import hold_lease
from recsys_spark.storage.paths import under
from recsys_spark.storage.records import decode, encode, from_iso, to_iso, utc_now
from recsys_spark.storage.run_storage import RunStorage

_LEASE_TTL_S = 600
# Spaces at the ends, line breaks and quotes of ids stay as they are.
_CSV = {
    "header": "true",
    "quoteAll": "true",
    "escape": '"',
    "ignoreLeadingWhiteSpace": "false",
    "ignoreTrailingWhiteSpace": "false",
}


class FeedStore:
    """Lists in files."""

    def __init__(self, export: FilesExport) -> None:
        self._export, self._root = export, export.path

    def check(self) -> None:
        """Nothing: the folder may be where only Spark can look."""

    def served_run(self, spark: SparkSession) -> str | None:
        """What the pointer says."""
        pointer = self._pointer(self._filesystem(spark))
        return None if pointer is None else str(pointer["run_id"])

    def write(self, storage: RunStorage) -> str:
        """Write what is not there yet, remove what is old, then move the pointer."""
        filesystem = self._filesystem(storage.spark)
        with self._explained(), hold_lease(filesystem, self._root, storage.run.run_id, _LEASE_TTL_S) as lease:
            before = self._pointer(filesystem)
            full = self._write_full(storage, filesystem)
            delta = self._write_delta(storage, filesystem, before)
            lease.ensure_held()
            pointer = {**self._head(), **_facts(storage), "full": full, "delta": delta}
            self._remove_old(filesystem, {full, before["full"] if before is not None else full})
            filesystem.replace(under(self._root, POINTER), encode(pointer))
        changes = "" if delta is None else f", {delta['upserts']:,} changed and {delta['deletes']:,} gone"
        return f"in {under(self._root, full)}{changes}"

    def forget(self, spark: SparkSession, user_id: str) -> int:
        """Out of the files of all runs; then readers are told to read them again."""
        filesystem = self._filesystem(spark)
        if not filesystem.exists(self._root):
            return 0
        with self._explained(), hold_lease(filesystem, self._root, "forget", _LEASE_TTL_S):
            pointer = self._pointer(filesystem)  # first, as it tells whether the folder is a feed
            removed = forget_in_feed(filesystem, self._root, user_id, self._export.kind == "csv")
            if pointer is not None:
                pointer["changed_at"] = to_iso(utc_now())
                filesystem.replace(under(self._root, POINTER), encode(pointer))
            return removed

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever goes wrong with the files is an ExportError."""
        try:
            yield
        except (PySparkException, OSError) as error:
            raise ExportError(f"{self._root}: {reason_of(error)}") from error
        except RecsysError as error:
            raise ExportError(str(error).replace("storage.root", "path")) from error

    def _head(self) -> dict[str, Any]:
        return {"format_version": 1, "kind": self._export.kind}

    def _filesystem(self, spark: SparkSession) -> FileSystem:
        try:
            return open_filesystem(self._root, spark)
        except SettingsError as error:
            raise ExportError(str(error).replace("storage.root", "path")) from error

    def _pointer(self, filesystem: FileSystem) -> dict[str, Any] | None:
        path = under(self._root, POINTER)
        try:
            pointer = decode(filesystem.read_bytes(path), path)
        except FileNotFoundError:
            return None
        except (OSError, RecsysError) as error:
            raise ExportError(f"{path} cannot be read: {error}") from error
        if pointer.get("format_version") != 1 or "full" not in pointer:
            raise ExportError(f"{path} is not the pointer of a feed: name a folder of its own in path")
        if pointer["kind"] != self._export.kind:
            raise ExportError(f"{path} is of a feed of kind {pointer['kind']}: name another folder in path")
        return pointer

    def _write_full(self, storage: RunStorage, filesystem: FileSystem) -> str:
        relative = f"full/run_id={storage.run.run_id}"
        folder = under(self._root, relative)
        if not self._is_reusable(f"{folder}/{DONE}", storage):
            for kind in ("delta", "full"):
                filesystem.delete(under(self._root, f"{kind}/run_id={storage.run.run_id}"))
            self._write(lists_of(storage), folder)
            filesystem.replace(f"{folder}/{DONE}", encode(_facts(storage)))
        return relative

    def _is_reusable(self, done: str, storage: RunStorage) -> bool:
        """Whether the files are complete, and nobody was forgotten since."""
        filesystem = self._filesystem(storage.spark)
        if not filesystem.exists(done):
            return False
        written_at = from_iso(decode(filesystem.read_bytes(done), done)["exported_at"])
        return all(each.forgotten_at < written_at for each in read_forgotten(storage.filesystem, storage.run.root))

    def _write_delta(
        self, storage: RunStorage, filesystem: FileSystem, before: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """None without a run before whose lists are still there: consumers take all lists then."""
        served = None if before is None else str(before["run_id"])
        base = base_run(storage, served) if self._export.delta else None
        if base is None:
            return None
        relative = f"delta/run_id={storage.run.run_id}/base={base.run_id}"
        folder = under(self._root, relative)
        if filesystem.exists(f"{folder}/{DELTA}"):
            return {**decode(filesystem.read_bytes(f"{folder}/{DELTA}"), folder), "path": relative}
        filesystem.delete(folder)
        counts = Observation()
        changes = changed_lists(lists_of(storage), lists_of(storage, base), self._export.delta_scores)
        is_gone = F.col("op") == "delete"
        columns = (F.count_if(~is_gone).alias("upserts"), F.count_if(is_gone).alias("deletes"))
        self._write(changes.observe(counts, *columns), folder)
        header = {"run_id": storage.run.run_id, "base_run_id": base.run_id, **counts.get}
        filesystem.replace(f"{folder}/{DELTA}", encode(header))
        return {**header, "path": relative}

    def _write(self, frame: DataFrame, folder: str) -> None:
        options = {"compression": self._export.compression}
        if self._export.kind == "csv":
            one_line_an_item(frame).write.options(**options, **_CSV).csv(folder)
        else:
            frame.write.options(**options).json(folder)

    def _remove_old(self, filesystem: FileSystem, served: set[str]) -> None:
        """Keep the newest runs; what was begun and never finished goes, as nobody else writes."""
        found: dict[str, str] = {}
        for entry in filesystem.list(under(self._root, "full")):
            path = under(self._root, f"full/{entry.name}")
            done = f"{path}/{DONE}"
            is_done = filesystem.exists(done)
            found[entry.name] = str(decode(filesystem.read_bytes(done), done)["exported_at"]) if is_done else ""
        newest = sorted(found, key=lambda name: (f"full/{name}" in served, found[name]), reverse=True)
        for name in newest[self._export.keep :]:
            for kind in ("delta", "full"):
                filesystem.delete(under(self._root, f"{kind}/{name}"))


def _facts(storage: RunStorage) -> dict[str, Any]:
    run = storage.run
    users = count_lists(storage)
    return {"run_id": run.run_id, "run_date": run.run_date.isoformat(), "users": users, "exported_at": now_iso()}
