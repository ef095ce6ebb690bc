"""Shows how far a night is: bars on a terminal, plain lines elsewhere. Long work calls `report_progress`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from pyspark import SparkContext
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from recsys_spark.memory import MemorySampler

_POLL_S = 0.25
_LINE_EVERY_S = 30.0


@dataclass
class StepProgress:
    """How far the running step is; `done` of `total`, 0 while unknown."""

    name: str
    done: float = 0.0
    total: float = 0.0
    note: str = ""
    started: float = field(default_factory=time.monotonic)


_running: ContextVar[StepProgress | None] = ContextVar("running_step", default=None)


def report_progress(done: float, total: float, note: str = "") -> None:
    """Say how far the running step is; without effect outside of a step."""
    step = _running.get()
    if step is not None:
        step.done, step.total, step.note = done, total, note


@dataclass
class StepUsage:
    """What a step took: seconds of wall time, peak bytes of the driver, its Java and its local workers."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextmanager
def watch_step(name: str, context: SparkContext | None, console: Console) -> Iterator[StepUsage]:
    """Show the progress of a step while the block runs, and fill in what it took."""
    step, usage = StepProgress(name), StepUsage()
    token = _running.set(step)
    stopped = threading.Event()
    show = _show_bar if console.is_terminal else _show_lines
    shower = threading.Thread(target=show, args=(step, context, console, stopped), daemon=True)
    sampler = MemorySampler()
    try:
        with sampler:
            shower.start()
            yield usage
    finally:
        stopped.set()
        shower.join()
        _running.reset(token)
        usage.seconds, usage.peak_memory_bytes = time.monotonic() - step.started, sampler.peak_bytes


def _show_bar(step: StepProgress, context: SparkContext | None, console: Console, stopped: threading.Event) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description:<13}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        bar = bars.add_task(step.name, total=None, note="")
        while not stopped.wait(_POLL_S):
            done, total, note = _state(step, context)
            bars.update(bar, completed=done, total=total or None, note=note)


def _show_lines(step: StepProgress, context: SparkContext | None, console: Console, stopped: threading.Event) -> None:
    while not stopped.wait(_LINE_EVERY_S):
        done, total, note = _state(step, context)
        share = f"{done / total:.0%} " if total else ""
        seconds = time.monotonic() - step.started
        console.print(f"{step.name}: {share}{note} ({seconds:.0f} s so far)", highlight=False)


def _state(step: StepProgress, context: SparkContext | None) -> tuple[float, float, str]:
    """What the step itself reports, or else the tasks of the Spark stages that run."""
    if step.total or context is None:
        return step.done, step.total, step.note
    tracker = context.statusTracker()
    stages = [info for stage in tracker.getActiveStageIds() if (info := tracker.getStageInfo(stage)) is not None]
    done, total = sum(stage.numCompletedTasks for stage in stages), sum(stage.numTasks for stage in stages)
    return done, total, f"{done}/{total} tasks" if total else ""
