"""Where everything lies under the root, and how a run is named.

<root>/_CURRENT                                the pointer: which run readers see
<root>/_LEASE/                                 which night works here
<root>/_REMOVING/                              runs that are being removed
<root>/_FORGOTTEN/                             users who asked to be forgotten, by the hash of their id
<root>/runs/run_date=D/run_id=R/<table>/       Parquet, read only once the run is published
<root>/runs/run_date=D/run_id=R/_RUN.json      what the run was started with
<root>/runs/run_date=D/run_id=R/_steps/        one record a finished step
<root>/runs/run_date=D/run_id=R/_tables/       one receipt a complete table or folder
<root>/runs/run_date=D/run_id=R/_MANIFEST.json written last: the run is published

Spark's readers skip names that start with `_`, so none of these records is taken for data.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from recsys_spark.errors import SettingsError
from recsys_spark.storage.filesystem import FileSystem, entries_of
from recsys_spark.storage.records import checked_name, utc_now

POINTER = "_CURRENT"
LEASE = "_LEASE"
_RUNS, _DATE, _ID = "runs", "run_date=", "run_id="
Part = TypeVar("Part")


@dataclass(frozen=True)
class Run:
    """One attempt at one night: where it is and the run it builds upon."""

    root: str
    run_date: date
    run_id: str
    parent: str | None = None

    def __post_init__(self) -> None:
        checked_name("run id", self.run_id)

    @property
    def relative_path(self) -> str:
        """Folder of the run, relative to the root."""
        return f"{_RUNS}/{_DATE}{self.run_date.isoformat()}/{_ID}{self.run_id}"

    @property
    def path(self) -> str:
        """Folder of the run."""
        return under(self.root, self.relative_path)

    @property
    def record_path(self) -> str:
        """What the run was started with."""
        return f"{self.path}/_RUN.json"

    @property
    def manifest_path(self) -> str:
        """What the run holds; there once it is published."""
        return f"{self.path}/_MANIFEST.json"

    @property
    def withdrawn_path(self) -> str:
        """There when a rollback moved readers away from the run."""
        return f"{self.path}/_WITHDRAWN.json"

    @property
    def steps_path(self) -> str:
        """Folder of the records of finished steps."""
        return f"{self.path}/_steps"

    def table_path(self, name: str) -> str:
        """Folder of a table, or of another folder of the run such as `model`."""
        return f"{self.path}/{checked_name('table or folder', name)}"

    def receipt_path(self, name: str) -> str:
        """The file that says that a table or folder is complete."""
        return f"{self.path}/_tables/{checked_name('table or folder', name)}.json"


def under(root: str, relative: str) -> str:
    """The path of something under the root, which may end with a slash."""
    return f"{root.rstrip('/')}/{relative}"


def new_run_id() -> str:
    """A new id, such as `20261122T031500Z-1a2b3c`: UTC time of the start, then chance, so that ids sort by time."""
    return f"{utc_now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def run_dates(filesystem: FileSystem, root: str) -> tuple[date, ...]:
    """The run dates under a root, rising. Folders of other names are left alone."""
    return tuple(sorted(_parts(filesystem, under(root, _RUNS), _DATE, date.fromisoformat)))


def runs_of(filesystem: FileSystem, root: str, run_date: date) -> tuple[Run, ...]:
    """The runs of a date by id; their parents are not read."""
    folder = under(root, f"{_RUNS}/{_DATE}{run_date.isoformat()}")
    found = _parts(filesystem, folder, _ID, lambda run_id: Run(root, run_date, run_id))
    return tuple(sorted(found, key=lambda run: run.run_id))


def find_run(filesystem: FileSystem, root: str, run_id: str) -> Run | None:
    """The run of an id, whatever its date; its parent is not read. None when there is none."""
    candidates = (Run(root, run_date, run_id) for run_date in reversed(run_dates(filesystem, root)))
    return next((run for run in candidates if filesystem.exists(run.record_path)), None)


def _parts(filesystem: FileSystem, folder: str, prefix: str, parse: Callable[[str], Part]) -> Iterator[Part]:
    entries = entries_of(filesystem, folder)
    names = [entry.name for entry in entries if entry.is_directory and entry.name.startswith(prefix)]
    for name in names:
        try:
            part = parse(name.removeprefix(prefix))
        except (ValueError, SettingsError):
            continue
        yield part
