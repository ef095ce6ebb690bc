"""What shows that the executors did the work: the event log, their processes, folders and logs."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cluster.standalone import Cluster, Worker

_EVERY_S = 0.5
_PYTHON_BYTES = "data sent to Python workers"
_CACHE_LINE = re.compile(r"^\[cache\] data (saved to|loaded from) '?([^']+\.nbc)", re.MULTILINE)


def python_tasks(event_log: Path) -> Counter[str]:
    """Successful tasks that fed Python workers, by executor."""
    tasks: Counter[str] = Counter()
    with event_log.open() as lines:
        for line in lines:
            event = json.loads(line)
            if event["Event"] != "SparkListenerTaskEnd" or event["Task End Reason"]["Reason"] != "Success":
                continue
            task = event["Task Info"]
            tasks[task["Executor ID"]] += any(value.get("Name") == _PYTHON_BYTES for value in task["Accumulables"])
    return tasks


@contextmanager
def watched_interpreters(cluster: Cluster) -> Iterator[dict[str, set[Path]]]:
    """Python programs seen below each worker while the block runs, by the name of the worker's folder."""
    seen: dict[str, set[Path]] = {worker.folder.name: set() for worker in cluster.workers}
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(_EVERY_S):
            for worker in cluster.workers:
                seen[worker.folder.name] |= _interpreters(worker)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        stopped.set()
        watcher.join()


def _interpreters(worker: Worker) -> set[Path]:
    found = set()
    for process in worker.process.children(recursive=True):
        try:
            command = process.cmdline()
            if "pyspark.daemon" in command:
                found.add(Path(process.cwd()) / command[0])
        except psutil.Error:  # it has just ended
            continue
    return found


def compilations(executor: Path) -> tuple[Counter[str], Counter[str]]:
    """Numba kernels that an executor's Python workers compiled, and loaded from the cache, by file and times."""
    compiled: Counter[str] = Counter()
    loaded: Counter[str] = Counter()
    for log in ("stdout", "stderr"):
        for action, file in _CACHE_LINE.findall((executor / log).read_text(errors="replace")):
            (compiled if action == "saved to" else loaded)[file] += 1
    return compiled, loaded


def installed(environment: Path) -> set[str]:
    """Names of the packages in an unpacked archive."""
    return {
        folder.name.partition("-")[0].lower() for folder in environment.glob("lib/python*/site-packages/*.dist-info")
    }
