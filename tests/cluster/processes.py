"""Starts processes with a log each, and stops them with all their children, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

_STOP_S = 10.0
_POLL_S = 0.2
_FOREIGN = ("SPARK_", "PYSPARK_", "PYTHONPATH", "HADOOP_", "YARN_", "RECSYS_")


class ProcessError(Exception):
    """A process ended with an error, or did not do in time what it should."""


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what steers Spark or the settings from outside."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)} | extra


@contextmanager
def running(command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> Iterator[psutil.Popen]:
    """A process in a session of its own, so that a Ctrl-C reaches it through `stop` only."""
    with log.open("wb") as output:
        process = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: psutil.Process) -> None:
    """End a process and all its children; kill those that do not end by themselves."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        _signal(member, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_STOP_S)
    for member in alive:
        _signal(member, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=_STOP_S)


def run(command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path, timeout_s: float) -> float:
    """Run a command to its end; give its seconds.

    Raises:
        ProcessError: when it fails or takes longer than `timeout_s`.
    """
    started = time.monotonic()
    with running(command, log, environment, cwd) as process:
        try:
            code = process.wait(timeout=timeout_s)
        except psutil.TimeoutExpired as error:
            raise ProcessError(f"{Path(command[0]).name} took longer than {timeout_s:.0f} s") from error
    if code:
        raise ProcessError(f"{Path(command[0]).name} ended with exit code {code}")
    return time.monotonic() - started


def wait_for(pattern: str, log: Path, process: psutil.Popen, timeout_s: float) -> re.Match[str]:
    """The first match in a growing log.

    Raises:
        ProcessError: when the process ends, or the time is up.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        match = re.search(pattern, log.read_text(errors="replace"))
        if match is not None:
            return match
        if process.poll() is not None:
            raise ProcessError(f"the process of {log.name} ended with exit code {process.returncode}")
        time.sleep(_POLL_S)
    raise ProcessError(f"{log.name} did not say {pattern!r} within {timeout_s:.0f} s")


def end_on_signals() -> None:
    """The first Ctrl-C or SIGTERM unwinds what was started; more of them do not disturb that."""

    def end(number: int, _: FrameType | None) -> None:
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, end)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
