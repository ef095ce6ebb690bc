"""Exporting the lists of a published run to a store of the settings: by hand, and after a night."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.errors import DeliveryError, RecsysError, SettingsError
from recsys_spark.export_sections import StoreExport
from recsys_spark.progress import watch_step
from recsys_spark.session import open_session
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.stores import Store, count_lists, open_store, reason_of
from recsys_spark.storage.errors import UnknownRunError
from recsys_spark.storage.filesystem import open_filesystem
from recsys_spark.storage.pointer import current_run
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import open_run

if TYPE_CHECKING:
    from recsys_spark.config import Settings


def export_to(settings: Settings, name: str, run_id: str | None, console: Console) -> None:
    """Export the current run, or a published one by its id, and say what was done.

    Raises:
        SettingsError: when the settings have no such export, or there is no such run.
        ExportError: when it fails; the store serves what it served before.
    """
    store = open_store(find_export(settings, name))
    try:
        store.check()
        storage = _published(open_session(settings), settings.storage.root, run_id)
        export_run(storage, store, name, console)
    except ExportError as error:
        raise ExportError(
            f"export to {name} failed: {str(error).rstrip('.')}. What it served before, it still serves. "
            f"After mending the cause: recsys-spark export --settings FILE --to {name}"
            + (f" --run-id {run_id}" if run_id else "")
        ) from error


def export_run(storage: RunStorage, store: Store, name: str, console: Console) -> None:
    """Export a run unless the store serves it already; print one line."""
    run = storage.run
    if store.served_run(storage.spark) == run.run_id:
        console.print(
            f"{name} serves run {run.run_id} of {run.run_date} already: nothing to do", highlight=False, soft_wrap=True
        )
        return
    with watch_step(f"export {name}", storage.spark.sparkContext, console) as usage:
        note = store.write(storage)
    users = count_lists(storage)
    rate = users / max(usage.seconds, 0.001)
    console.print(
        f"{name} serves run {run.run_id} of {run.run_date}: {users:,} users in {usage.seconds:.1f} s "
        f"({rate:,.0f} a second), {note}",
        highlight=False,
        soft_wrap=True,
    )


def deliver(storage: RunStorage, settings: Settings, console: Console) -> None:
    """Export a night's run to every store with `deliver = true`, each one tried, whatever happens to the others.

    A run that readers are not pointed to, such as a backfill, is not delivered.

    Raises:
        DeliveryError: naming the stores that failed, why, and the command that finishes each; the run is published.
    """
    wanted = [name for name, export in settings.exports.items() if export.deliver]
    run = storage.run
    current = current_run(storage.filesystem, run.root)
    if current is None or current.run_id != run.run_id:
        return
    failed = {}
    for name in wanted:
        try:
            export_run(storage, open_store(settings.exports[name]), name, console)
        except Exception as error:  # whatever it is, the run is published, and that must be said
            failed[name] = _short(error)
    if failed:
        reasons = ". ".join(f"{name}: {reason}" for name, reason in failed.items())
        command = f"recsys-spark export --settings FILE --run-id {run.run_id} --to"
        commands = "; ".join(f"{command} {name}" for name in failed)
        raise DeliveryError(
            f"run {run.run_id} is published and current, but was not delivered to {', '.join(failed)}, which "
            f"serve{'s' if len(failed) == 1 else ''} what was there before. {reasons}. To finish: {commands}"
        )


def forget_in_stores(settings: Settings, user_id: str, console: Console) -> None:
    """Take a user's lists out of every store of the settings, each one tried, and say how many there were.

    Raises:
        RecsysError: naming the stores that could not be asked, and why; the same command again finishes it.
    """
    if not settings.exports:
        return
    spark, failed = open_session(settings), {}
    for name, export in settings.exports.items():
        try:
            count = open_store(export).forget(spark, user_id)
            console.print(f"{name}: {count:,} of their lists removed", highlight=False)
        except Exception as error:  # whatever it is, the other stores are to forget
            failed[name] = _short(error)
    if failed:
        reasons = ". ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise RecsysError(f"{', '.join(failed)} may still hold them. {reasons}. To finish: the same command again")


def find_export(settings: Settings, name: str) -> StoreExport:
    """The section of an export.

    Raises:
        SettingsError: when there is none of this name, naming those there are.
    """
    if name not in settings.exports:
        known = ", ".join(settings.exports) or "none: add a section [exports.NAME]"
        raise SettingsError(f"there is no export {name!r}; the settings have {known}")
    return settings.exports[name]


def _short(error: Exception) -> str:
    reason = str(error) if isinstance(error, RecsysError) else f"{type(error).__name__}: {reason_of(error)}"
    return reason.rstrip(".")


def _published(spark: SparkSession, root: str, run_id: str | None) -> RunStorage:
    if run_id is None:
        run = current_run(open_filesystem(root, spark), root)
        if run is None:
            raise RecsysError(f"nothing is published under {root} yet: run `recsys-spark run` first")
        run_id = run.run_id
    storage = open_run(spark, root, run_id)
    if not storage.is_published:
        raise UnknownRunError(f"run {run_id} is not published: only an audited, published run can be exported")
    return storage
