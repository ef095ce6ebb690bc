"""One night at a time works on a root: it holds the root's lease and renews it while it lives."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from recsys_spark.errors import SettingsError
from recsys_spark.storage.errors import LeaseHeldError, LeaseLostError
from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.lease_records import (
    Generation,
    LeaseRecord,
    delete_generation,
    newest_generation,
    older_generations,
    write_generation,
)
from recsys_spark.storage.processes import this_process
from recsys_spark.storage.records import to_iso, utc_now

_log = logging.getLogger(__name__)
# Four renewals may fail before anyone takes over.
_HEARTBEATS_PER_TTL = 5
_ATTEMPTS = 5


@contextmanager
def hold_lease(filesystem: FileSystem, root: str, run_id: str, ttl_s: float) -> Iterator[Lease]:
    """Hold the root's lease while the block runs, renewed by a thread; `ttl_s` in seconds.

    A lease is taken over when its holder gave no sign for the holder's `ttl_s`, or is a dead process
    of this machine. Hosts that share a root must have their clocks in step, far better than `ttl_s`.

    Raises:
        LeaseHeldError: when another night holds it, naming the holder.
        SettingsError: when the root cannot be written.
    """
    try:
        lease = _acquire(filesystem, root, run_id, ttl_s)
    except OSError as error:
        raise SettingsError(f"storage.root {root!r} cannot be written: {error}") from error
    lease.start_heartbeat()
    try:
        yield lease
    finally:
        lease.release()


def lease_holder(filesystem: FileSystem, root: str) -> LeaseRecord | None:
    """Who holds the lease; None when it is free or about to be taken."""
    newest = newest_generation(filesystem, root)
    record = newest.record if newest else None
    return None if record is None or record.is_free(utc_now()) else record


class Lease:
    """A lease that was acquired. Its methods may be called from any thread."""

    def __init__(self, filesystem: FileSystem, root: str, number: int, record: LeaseRecord) -> None:
        self._filesystem, self._root, self._number, self._record = filesystem, root, number, record
        self._renewed_monotonic = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._loss: str | None = None

    @property
    def record(self) -> LeaseRecord:
        """What other nights read about this one."""
        return self._record

    def start_heartbeat(self) -> None:
        """Renew the lease from a thread until it is released."""
        self._heartbeat.start()

    def ensure_held(self) -> None:
        """Renew now; call it right before anything is made visible.

        Raises:
            LeaseLostError: when the lease was taken over, removed, or not renewed in time.
        """
        with self._lock:
            try:
                self._renew()
            except OSError as error:
                raise LeaseLostError(f"the lease of {self._root} cannot be renewed: {error}") from error
            if self._loss is not None:
                raise LeaseLostError(f"run {self._record.run_id} lost the lease of {self._root}: {self._loss}")

    def release(self) -> None:
        """Give the lease up, when it is still this one's. What keeps it from being written is logged, not raised."""
        self._stopped.set()
        with self._lock:
            try:
                if self._loss is None and self._is_ours():
                    self._write(replace(self._record, is_released=True))
            except Exception as error:  # the night's own outcome must not be hidden
                _log.warning("lease of %s not released, it expires by itself: %s", self._root, error)
            self._loss = self._loss or "it was released"

    def _beat(self) -> None:
        while not self._stopped.wait(self._record.ttl_s / _HEARTBEATS_PER_TTL):
            with self._lock:
                try:
                    self._renew()
                except Exception as error:  # a file system may be away for a moment
                    _log.warning("lease of %s not renewed, trying again: %s", self._root, error)
                if self._loss is not None:
                    _log.error("lease of %s lost: %s", self._root, self._loss)
                    return

    def _renew(self) -> None:
        """Once lost, a lease stays lost: someone may have acted upon it."""
        if self._loss is None and self._has_lapsed():
            self._loss = f"it was not renewed for {self._record.ttl_s:g} s"
        if self._loss is None and not self._is_ours():
            self._loss = "another night has taken it over, or it was removed"
        if self._loss is None:
            self._write(replace(self._record, renewed_at=utc_now()))

    def _has_lapsed(self) -> bool:
        """By either clock: the monotonic one stands still while a machine sleeps, the other can be set back."""
        silent_s = max(
            time.monotonic() - self._renewed_monotonic, (utc_now() - self._record.renewed_at).total_seconds()
        )
        return silent_s > self._record.ttl_s

    def _is_ours(self) -> bool:
        newest = newest_generation(self._filesystem, self._root)
        return newest is not None and newest.record is not None and newest.record.token == self._record.token

    def _write(self, record: LeaseRecord) -> None:
        before = time.monotonic()
        write_generation(self._filesystem, self._root, self._number, record, is_new=False)
        self._record, self._renewed_monotonic = record, before


def _acquire(filesystem: FileSystem, root: str, run_id: str, ttl_s: float) -> Lease:
    for _ in range(_ATTEMPTS):
        newest = newest_generation(filesystem, root)
        now = utc_now()
        if newest is not None and not newest.is_free(now, ttl_s):
            raise LeaseHeldError(_held_message(root, newest, ttl_s))
        number = newest.number + 1 if newest else 1
        record = LeaseRecord(run_id, this_process(), secrets.token_hex(16), ttl_s, now, now)
        if _claim(filesystem, root, number, record):
            return Lease(filesystem, root, number, record)
    raise LeaseHeldError(f"the lease of {root} changed hands {_ATTEMPTS} times while it was asked for: try again later")


def _claim(filesystem: FileSystem, root: str, number: int, record: LeaseRecord) -> bool:
    """Whether this racer made the generation, and it still is the highest."""
    try:
        write_generation(filesystem, root, number, record, is_new=True)
    except FileExistsError:
        return False
    newest = newest_generation(filesystem, root)
    if newest is None or newest.number != number:  # this racer was so late that its number had been cleaned away
        delete_generation(filesystem, root, number)
        return False
    for older in older_generations(filesystem, root, number):
        delete_generation(filesystem, root, older)
    return True


def _held_message(root: str, newest: Generation, ttl_s: float) -> str:
    record = newest.record
    if record is None:
        until = to_iso(newest.modified_at + timedelta(seconds=ttl_s))
        return f"{root} is leased to a night that is just starting, or died doing so; the lease is free at {until}"
    process = record.process
    return (
        f"{root} is leased to run {record.run_id} on host {process.host}, pid {process.pid}, since "
        f"{to_iso(record.acquired_at)}; last sign {to_iso(record.renewed_at)}, free at {to_iso(record.expires_at)} "
        "unless renewed: wait for that run, or stop its process"
    )
