"""Which process is this, and is that one still alive? Answers across processes of one machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_ZOMBIE_STATES = "ZX"


@dataclass(frozen=True)
class ProcessIdentity:
    """A process for good: a later process with the same pid has another `started`.

    `machine` tells containers apart that share a host name but not their processes.
    """

    host: str
    machine: str
    pid: int
    started: str


def this_process() -> ProcessIdentity:
    """The identity of the running process."""
    return ProcessIdentity(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "")


def is_gone(process: ProcessIdentity) -> bool:
    """Whether the process has certainly ended. Of another machine nothing is certain."""
    if process.machine != _machine():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # someone else's process: alive, perhaps under a reused pid
    started = _started(process.pid)
    return started is not None and started != process.started


def _started(pid: int) -> str | None:
    """When a process started, `ended` for a zombie, None when this cannot be seen.

    Linux counts in ticks since the boot, which no change of the clock moves.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "ended" if fields[0] in _ZOMBIE_STATES else fields[19]
    except OSError:
        return _started_elsewhere(pid)


def _started_elsewhere(pid: int) -> str | None:
    try:
        return f"{psutil.Process(pid).create_time():.1f}"
    except psutil.Error:
        return None


@cache
def _machine() -> str:
    """Host name, boot and process namespace; a part that the system does not tell stays empty."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append("")
    return "/".join(parts)
