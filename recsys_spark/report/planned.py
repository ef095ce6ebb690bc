"""Prints what a night would take, before anything is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid

from recsys_spark.errors import SettingsError
from recsys_spark.footprints import Workload
from recsys_spark.planning import StepPlan, measure_speeds, plan_night, refusals
from recsys_spark.session import open_session
from recsys_spark.sources import count_events

if TYPE_CHECKING:
    from recsys_spark.config import Settings

_MINUTE_S, _HOUR_S = 60.0, 3600.0


def print_plan(
    settings: Settings, sizes: tuple[int | None, int | None, int | None], cores: int | None, console: Console
) -> None:
    """Print the plan for these users, items and pairs; what is None is counted in the input.

    Raises:
        SettingsError: naming each thing that does not fit, and the setting that would change it.
    """
    workload, cores = _workload(settings, sizes, cores)
    speeds = measure_speeds(settings, workload)
    plans = plan_night(settings, workload, speeds, cores)
    blocks = -(-workload.users // settings.matrix.block_users)
    console.print(
        f"{workload.users:,} users x {workload.items:,} items, {workload.interactions:,} interactions: "
        f"{blocks:,} blocks of {settings.matrix.block_users:,} users, on {cores} cores",
        highlight=False,
    )
    score, distance = speeds.score_s * 1e9, speeds.distance_s * 1e9
    console.print(f"one core here: {score:.2f} ns a score, {distance:.2f} ns a distance", highlight=False)
    console.print(_grid(plans))
    found = list(refusals(settings, plans))
    if found:
        raise SettingsError("\n  ".join(["this cannot fit:", *found]))


def _workload(
    settings: Settings, sizes: tuple[int | None, int | None, int | None], cores: int | None
) -> tuple[Workload, int]:
    users, items, interactions = sizes
    if users and items and interactions and cores:
        return Workload(users, items, interactions), cores
    spark = open_session(settings)
    if not (users and items and interactions):
        counted = count_events(spark, settings)
        users, items, interactions = (given or count for given, count in zip(sizes, counted, strict=True))
    return Workload(users, items, interactions), cores or spark.sparkContext.defaultParallelism


def _grid(plans: list[StepPlan]) -> Grid:
    grid = Grid(box=None, pad_edge=False)
    for name in ("step", "tasks", "shards", "on disk", "a worker", "the driver", "time"):
        grid.add_column(name, justify="left" if name == "step" else "right")
    for plan in plans:
        grid.add_row(
            plan.step,
            f"{plan.tasks:,}" if plan.tasks else "-",
            f"{plan.shards:,}" if plan.shards else "-",
            _size(plan.disk_bytes),
            _size(plan.worker_bytes),
            _size(plan.driver_bytes),
            _duration(plan.seconds),
        )
    return grid


def _size(count: int) -> str:
    if count == 0:
        return "-"
    return f"{count / 2**30:,.1f} GB" if count >= 2**30 else f"{count / 2**20:,.1f} MB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not estimated"
    if seconds >= _HOUR_S:
        return f"{seconds / _HOUR_S:,.1f} h"
    return f"{seconds / _MINUTE_S:,.1f} min" if seconds >= _MINUTE_S else f"{seconds:,.1f} s"
