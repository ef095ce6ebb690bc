"""Which runs may go, and how they go: never one that readers see, may still read, or that the next night builds on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.paths import Run, run_dates, runs_of
from recsys_spark.storage.pointer import current_run, read_history
from recsys_spark.storage.records import utc_now
from recsys_spark.storage.runs import RunInfo, publication_order, runs_under


@dataclass(frozen=True)
class Keep:
    """What is kept: the newest so many published runs, and all of so many days; nothing goes when both are None.

    `grace` is how long a reader may go on with a run after readers were pointed to another.
    """

    runs: int | None
    days: int | None
    grace: timedelta

    @property
    def is_limited(self) -> bool:
        """Whether anything may go at all."""
        return self.runs is not None or self.days is not None


def removable_runs(filesystem: FileSystem, root: str, keep: Keep, now: datetime | None = None) -> tuple[RunInfo, ...]:
    """The runs that may be removed, the oldest first.

    Raises:
        StorageError: when the pointer or the record of a run is broken: nothing is known to be safe then.
    """
    if not keep.is_limited:
        return ()
    now = utc_now() if now is None else now
    current = current_run(filesystem, root)
    runs = runs_under(filesystem, root, current)
    kept = _kept_published(runs, keep, now)
    kept |= {run_id for run_id, until in read_history(filesystem, root) if until > now - keep.grace}
    kept |= {info.run.run_id for info in runs if info.is_current or _is_young(info, keep, now)}
    kept |= _kept_unfinished(runs, kept)
    # What builds on a run cannot go on without it.
    kept |= {info.run.parent for info in runs if not info.is_published and info.run.run_id in kept and info.run.parent}
    return tuple(info for info in runs if info.run.run_id not in kept)


def remove_old_runs(filesystem: FileSystem, root: str, keep: Keep) -> tuple[RunInfo, ...]:
    """Remove the runs that may be removed, and what is left of earlier removals. Hold the lease of the root."""
    removed = removable_runs(filesystem, root, keep)
    for info in removed:
        remove_run(filesystem, info.run)
    if keep.is_limited:
        remove_leftovers(filesystem, root)
    return removed


def remove_run(filesystem: FileSystem, run: Run) -> None:
    """Remove a run. Hold the lease of the root.

    Its record goes first: from then on it is no run that anybody would list, resume or build on, however far it got.
    """
    filesystem.delete(run.record_path)
    filesystem.delete(run.path)


def remove_leftovers(filesystem: FileSystem, root: str) -> int:
    """Finish removals that broke off: folders of runs without a record; give their number. Hold the lease."""
    found = [run for day in run_dates(filesystem, root) for run in runs_of(filesystem, root, day)]
    leftovers = [run for run in found if not filesystem.exists(run.record_path)]
    for run in leftovers:
        filesystem.delete(run.path)
    return len(leftovers)


def _kept_published(runs: tuple[RunInfo, ...], keep: Keep, now: datetime) -> set[str]:
    published = [info for info in runs if info.is_published and not info.is_withdrawn]
    orders = sorted((publication_order(info) for info in published), reverse=True)
    oldest = orders[: max(keep.runs or 0, 1)][-1:]  # the next night builds on the newest
    kept = {info.run.run_id for info in published if [publication_order(info)] >= oldest}
    grace = {info.run.run_id for info in runs if info.published_at is not None and info.published_at > now - keep.grace}
    return kept | grace


def _is_young(info: RunInfo, keep: Keep, now: datetime) -> bool:
    since = info.created_at if info.published_at is None else info.published_at
    return keep.days is not None and since > now - timedelta(days=keep.days)


def _kept_unfinished(runs: tuple[RunInfo, ...], kept: set[str]) -> set[str]:
    """Runs that were never published stay as long as there is no kept run of a later date: somebody may go on."""
    newest = max((info.run.run_date for info in runs if info.is_published and info.run.run_id in kept), default=None)
    return {
        info.run.run_id for info in runs if not info.is_published and (newest is None or info.run.run_date >= newest)
    }
