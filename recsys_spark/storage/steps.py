"""Records of finished steps: a later step reads their facts, a resumed night skips them."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.filesystem import FileSystem, entries_of
from recsys_spark.storage.paths import Run
from recsys_spark.storage.records import checked_name, decode, encode, to_iso, utc_now


class StepLog:
    """The finished steps of a run, read once; only the night that holds the lease adds to them."""

    def __init__(self, filesystem: FileSystem, run: Run) -> None:
        self._filesystem, self._run = filesystem, run

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The records by step, in the order the steps finished."""
        entries = entries_of(self._filesystem, self._run.steps_path)
        paths = [f"{self._run.steps_path}/{entry.name}" for entry in entries if not entry.name.startswith(".")]
        records = [decode(self._filesystem.read_bytes(path), path) for path in paths]
        try:
            return {record["step"]: record for record in sorted(records, key=lambda record: str(record["finished_at"]))}
        except KeyError as error:
            raise StorageError(
                f"{self._run.steps_path} holds a record without {error}; remove it, run its step"
            ) from error

    def record(self, step: str) -> dict[str, Any]:
        """All about a finished step. Raises StorageError when it has not finished."""
        if step not in self.records:
            raise StorageError(f"step {step} of run {self._run.run_id} has not finished; run it first")
        return self.records[step]

    def add(self, step: str, facts: Mapping[str, Any]) -> None:
        """Record a step as finished; the tables and folders in `facts["rows"]` are its own from now on."""
        path, content = self._path(step), encode({"step": step, "finished_at": to_iso(utc_now()), **facts})
        self._filesystem.replace(path, content)
        self.records[step] = decode(content, path)  # what a later night will read

    def remove(self, step: str) -> None:
        """The step counts as unfinished again."""
        self._filesystem.delete(self._path(step))
        self.records.pop(step, None)

    def owner(self, name: str) -> str | None:
        """The finished step that wrote a table or folder."""
        return next((step for step, record in self.records.items() if name in record["rows"]), None)

    def _path(self, step: str) -> str:
        return f"{self._run.steps_path}/{checked_name('step', step)}.json"


def driver_peak_bytes() -> int:
    """Most memory the driver's Python process has held since it started; the JVM is not in it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
