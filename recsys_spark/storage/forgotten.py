"""Users who asked to be forgotten: a record each, by the hash of the id, which every night after it keeps to.

<root>/_FORGOTTEN/<sha256 of the id>.json   when it was asked for, and when the last run that held the user was gone
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.filesystem import FileSystem, entries_of
from recsys_spark.storage.paths import under
from recsys_spark.storage.records import decode, encode, from_iso, to_iso, utc_now

FOLDER = "_FORGOTTEN"


@dataclass(frozen=True)
class Forgotten:
    """A user who is forgotten; `done_at` is None while a run that was started before is still there."""

    user_sha256: str
    forgotten_at: datetime
    done_at: datetime | None


def forget_user(filesystem: FileSystem, root: str, user_id: str) -> Forgotten:
    """Keep a record that the user is to be forgotten, a new one each time that is asked. Hold the lease of the root."""
    record = Forgotten(hashlib.sha256(user_id.encode()).hexdigest(), utc_now(), None)
    _write(filesystem, root, record)
    return record


def read_forgotten(filesystem: FileSystem, root: str) -> tuple[Forgotten, ...]:
    """All records, the oldest first.

    Raises:
        StorageError: when one is broken.
    """
    entries = entries_of(filesystem, under(root, FOLDER))
    paths = [under(root, f"{FOLDER}/{entry.name}") for entry in entries if entry.name.endswith(".json")]
    records = [decode(filesystem.read_bytes(path), path) for path in paths]
    return tuple(sorted(map(_parsed, records), key=lambda each: each.forgotten_at))


def require_after_forgotten(filesystem: FileSystem, root: str, run_id: str, created_at: datetime) -> None:
    """Refuse to go on with, or back to, a run that was started before a user was forgotten.

    Raises:
        StorageError: such a run may hold what is known of the user.
    """
    later = [each.forgotten_at for each in read_forgotten(filesystem, root) if each.forgotten_at > created_at]
    if later:
        at = to_iso(later[-1])
        raise StorageError(f"run {run_id} was started before a user was forgotten at {at}: start a new run")


def finish_forgetting(filesystem: FileSystem, root: str, oldest_run: datetime | None) -> int:
    """Note which users are in no run any more, the oldest of which was started then; give their number."""
    waiting = [each for each in read_forgotten(filesystem, root) if each.done_at is None]
    done = [each for each in waiting if oldest_run is None or each.forgotten_at < oldest_run]
    for each in done:
        _write(filesystem, root, Forgotten(each.user_sha256, each.forgotten_at, utc_now()))
    return len(done)


def _parsed(record: dict[str, Any]) -> Forgotten:
    done_at = record["done_at"]
    return Forgotten(
        record["user_sha256"], from_iso(record["forgotten_at"]), None if done_at is None else from_iso(done_at)
    )


def _write(filesystem: FileSystem, root: str, record: Forgotten) -> None:
    content = {
        "user_sha256": record.user_sha256,
        "forgotten_at": to_iso(record.forgotten_at),
        "done_at": None if record.done_at is None else to_iso(record.done_at),
    }
    filesystem.replace(under(root, f"{FOLDER}/{record.user_sha256}.json"), encode(content))
