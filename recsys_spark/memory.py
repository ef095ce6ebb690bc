"""Samples the memory of this process and all its children: the driver, its Java, its local Python workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psutil

_EVERY_S = 0.05


class MemorySampler:
    """Context manager; `peak_bytes` is the largest `measure` seen, in bytes: of the whole family when left out.

    Pages that map files are left out: workers share them, and the kernel gives them up when memory is short.
    """

    def __init__(self, measure: Callable[[], int] | None = None) -> None:
        self.peak_bytes = 0
        self._measure = measure or _bytes_of_all
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, self._measure())
            if self._stopped.wait(_EVERY_S):
                return


def bytes_of_this_process() -> int:
    """What this process alone holds, mapped files left out: of a driver its Python, without Java and workers."""
    return _private(psutil.Process())


def _bytes_of_all() -> int:
    process, total = psutil.Process(), 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += _private(member)
        except psutil.Error:  # it ended, or is not ours to look at
            continue
    return total


def _private(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))
