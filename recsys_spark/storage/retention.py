"""Which runs may go, and how they go: never one that readers see, may still read, or that the next night builds on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from recsys_spark.storage.filesystem import FileSystem, entries_of
from recsys_spark.storage.forgotten import finish_forgetting, read_forgotten
from recsys_spark.storage.paths import Run, under
from recsys_spark.storage.pointer import current_run, read_history
from recsys_spark.storage.records import decode, encode, utc_now
from recsys_spark.storage.runs import RunInfo, publication_order, runs_under

_REMOVING = "_REMOVING"


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

    Those that were started before a user was forgotten go however many are kept, once readers have another.

    Raises:
        StorageError: when the pointer or the record of a run is broken: nothing is known to be safe then.
    """
    forgotten = max((each.forgotten_at for each in read_forgotten(filesystem, root)), default=None)
    if not keep.is_limited and forgotten is None:
        return ()
    now = utc_now() if now is None else now
    current = current_run(filesystem, root)
    runs = runs_under(filesystem, root, current)
    kept = _needed(filesystem, root, runs, keep, now)
    wanted = _wanted(runs, keep, now) if keep.is_limited else {info.run.run_id for info in runs}
    kept |= {
        info.run.run_id
        for info in runs
        if info.run.run_id in wanted and (forgotten is None or info.created_at >= forgotten)
    }
    # What builds on a run cannot go on without it.
    kept |= {info.run.parent for info in runs if not info.is_published and info.run.run_id in kept and info.run.parent}
    return tuple(info for info in runs if info.run.run_id not in kept)


def remove_old_runs(filesystem: FileSystem, root: str, keep: Keep) -> tuple[RunInfo, ...]:
    """Remove the runs that may be removed, and what is left of earlier removals. Hold the lease of the root."""
    finish_removals(filesystem, root)
    removed = removable_runs(filesystem, root, keep)
    for info in removed:
        remove_run(filesystem, info.run)
    finish_forgetting(filesystem, root, min((info.created_at for info in runs_under(filesystem, root)), default=None))
    return removed


def remove_run(filesystem: FileSystem, run: Run) -> None:
    """Remove a run. Hold the lease of the root.

    What is about to go is noted first, outside of it, so that a removal that breaks off can be finished. Then goes its
    record: from then on it is no run that anybody would list, resume or build on, however far it got.
    """
    note = under(run.root, f"{_REMOVING}/{run.run_id}.json")
    filesystem.replace(note, encode({"run_id": run.run_id, "run_date": run.run_date.isoformat()}))
    filesystem.delete(run.record_path)
    filesystem.delete(run.path)
    filesystem.delete(note)


def finish_removals(filesystem: FileSystem, root: str) -> int:
    """Remove what is left of runs whose removal broke off; give their number. Hold the lease of the root.

    Other folders are left alone, whatever they lack: a run that has lost its record may be what readers see.
    """
    notes = [under(root, f"{_REMOVING}/{entry.name}") for entry in entries_of(filesystem, under(root, _REMOVING))]
    records = [decode(filesystem.read_bytes(note), note) for note in notes]
    for record in records:
        remove_run(filesystem, Run(root, date.fromisoformat(record["run_date"]), record["run_id"]))
    return len(records)


def _needed(filesystem: FileSystem, root: str, runs: tuple[RunInfo, ...], keep: Keep, now: datetime) -> set[str]:
    """What readers see or may still read, and what the next night builds on."""
    needed = {run_id for run_id, until in read_history(filesystem, root) if until > now - keep.grace}
    needed |= {
        info.run.run_id for info in runs if info.published_at is not None and info.published_at > now - keep.grace
    }
    return needed | {info.run.run_id for info in runs if info.is_current} | _newest(runs, 1)


def _wanted(runs: tuple[RunInfo, ...], keep: Keep, now: datetime) -> set[str]:
    """What the settings keep beyond that; a run that was never published as long as none of a later date was."""
    published = _newest(runs, keep.runs or 1)
    latest = max((info.run.run_date for info in runs if info.run.run_id in published), default=None)
    unfinished = {
        info.run.run_id for info in runs if not info.is_published and (latest is None or info.run.run_date >= latest)
    }
    return published | unfinished | {info.run.run_id for info in runs if _is_young(info, keep, now)}


def _newest(runs: tuple[RunInfo, ...], count: int) -> set[str]:
    """The newest published runs that were not withdrawn; the next night builds on the first of them."""
    published = [info for info in runs if info.is_published and not info.is_withdrawn]
    orders = sorted((publication_order(info) for info in published), reverse=True)
    oldest = orders[:count][-1:]
    return {info.run.run_id for info in published if [publication_order(info)] >= oldest}


def _is_young(info: RunInfo, keep: Keep, now: datetime) -> bool:
    since = info.created_at if info.published_at is None else info.published_at
    return keep.days is not None and since > now - timedelta(days=keep.days)
