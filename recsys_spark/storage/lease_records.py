"""The files of a lease: `<root>/_LEASE/<generation>.json`, of which the highest generation counts.

Taking the lease is creating the next generation, which exactly one of several racers can do. A
holder that was paused and wakes up renews its own old generation, which nobody looks at any more;
with a single file it would overwrite its successor's. The highest generation is never deleted, so
numbers never come back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.filesystem import FileSystem, entries_of
from recsys_spark.storage.paths import LEASE, under
from recsys_spark.storage.processes import ProcessIdentity, is_gone
from recsys_spark.storage.records import decode, encode, from_iso, to_iso


@dataclass(frozen=True)
class LeaseRecord:
    """Who works on the root: `ttl_s` seconds after `renewed_at` the lease is free."""

    run_id: str
    process: ProcessIdentity
    token: str
    ttl_s: float
    acquired_at: datetime
    renewed_at: datetime
    is_released: bool = False

    @property
    def expires_at(self) -> datetime:
        """When the lease is free unless it is renewed."""
        return self.renewed_at + timedelta(seconds=self.ttl_s)

    def is_free(self, now: datetime) -> bool:
        """Whether another night may take over. Clocks of the hosts must agree far better than `ttl_s`."""
        return self.is_released or now > self.expires_at or is_gone(self.process)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        times = {"acquired_at": to_iso(self.acquired_at), "renewed_at": to_iso(self.renewed_at)}
        return asdict(self) | times | {"expires_at": to_iso(self.expires_at)}


@dataclass(frozen=True)
class Generation:
    """One file of the lease; `record` is None while it is unreadable: being written, or its writer died."""

    number: int
    modified_at: datetime
    record: LeaseRecord | None

    def is_free(self, now: datetime, ttl_s: float) -> bool:
        """Whether the next generation may be made."""
        if self.record is None:
            return now > self.modified_at + timedelta(seconds=ttl_s)
        return self.record.is_free(now)


def write_generation(filesystem: FileSystem, root: str, number: int, record: LeaseRecord, *, is_new: bool) -> None:
    """Make a generation (raises FileExistsError when another racer did), or renew one's own."""
    write = filesystem.create if is_new else filesystem.replace
    write(_path(root, number), encode(record.to_json()))


def newest_generation(filesystem: FileSystem, root: str) -> Generation | None:
    """The generation that counts; None when the root was never leased."""
    entries = entries_of(filesystem, under(root, LEASE))
    numbers = {int(stem): entry for entry in entries if (stem := entry.name.removesuffix(".json")).isdecimal()}
    if not numbers:
        return None
    number = max(numbers)
    return Generation(number, numbers[number].modified_at, read_generation(filesystem, root, number))


def read_generation(filesystem: FileSystem, root: str, number: int) -> LeaseRecord | None:
    """The record of a generation; None when it is gone or unreadable."""
    path = _path(root, number)
    try:
        return _from_json(decode(filesystem.read_bytes(path), path))
    except (FileNotFoundError, StorageError, KeyError, TypeError, ValueError):
        return None


def delete_generation(filesystem: FileSystem, root: str, number: int) -> None:
    """Remove a generation that a higher one has followed."""
    filesystem.delete(_path(root, number))


def older_generations(filesystem: FileSystem, root: str, number: int) -> list[int]:
    """Generations below a number."""
    stems = [entry.name.removesuffix(".json") for entry in filesystem.list(under(root, LEASE))]
    return [int(stem) for stem in stems if stem.isdecimal() and int(stem) < number]


def _path(root: str, number: int) -> str:
    return under(root, f"{LEASE}/{number:08d}.json")


def _from_json(fields: dict[str, Any]) -> LeaseRecord:
    return LeaseRecord(
        run_id=str(fields["run_id"]),
        process=ProcessIdentity(**fields["process"]),
        token=str(fields["token"]),
        ttl_s=float(fields["ttl_s"]),
        acquired_at=from_iso(fields["acquired_at"]),
        renewed_at=from_iso(fields["renewed_at"]),
        is_released=bool(fields["is_released"]),
    )
