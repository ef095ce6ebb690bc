"""Making a finished, audited run the one that readers see, and going back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pyspark.sql import SparkSession

from recsys_spark.storage.checksums import folder_files, hash_files, table_files
from recsys_spark.storage.errors import StorageError, UnknownRunError
from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.forgotten import require_after_forgotten
from recsys_spark.storage.lease import Lease
from recsys_spark.storage.manifest import Manifest, describe_run, read_manifest
from recsys_spark.storage.paths import Run
from recsys_spark.storage.pointer import current_run, point_to
from recsys_spark.storage.records import encode, to_iso, utc_now
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import RunInfo, publication_order, runs_under

_SHOWN_PROBLEMS = 3


def publish(
    storage: RunStorage,
    settings: BaseModel | Mapping[str, Any],
    *,
    input_snapshot: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    seeds: Mapping[str, int] | None = None,
    lease: Lease | None = None,
    move_pointer: bool | None = None,
) -> bool:
    """Write the manifest, then move the pointer, and return whether the run is current.

    Call it after the audit. A call that broke off is finished by repeating it. By default the
    pointer stays where it is when it points to a run of a later date (a backfill).

    Raises:
        LeaseLostError: when another night has taken over; readers see nothing of this run.
        StorageError: when the run is incomplete, or was withdrawn by a rollback.
    """
    filesystem, run = storage.filesystem, storage.run
    if filesystem.exists(run.withdrawn_path):
        raise StorageError(f"run {run.run_id} was withdrawn by a rollback: roll back to it by its id to return to it")
    if storage.is_published:
        read_manifest(filesystem, run)
    else:
        content = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
        manifest = describe_run(
            storage, settings=content, input_snapshot=input_snapshot or {}, metrics=metrics or {}, seeds=seeds
        )
        write_manifest(storage, manifest, lease)
    if lease is not None:
        lease.ensure_held()
    if move_pointer or (move_pointer is None and not _is_backfill(filesystem, run)):
        point_to(filesystem, run)
        return True
    return False


def write_manifest(storage: RunStorage, manifest: Manifest, lease: Lease | None = None) -> None:
    """Publish the run: from here on it never changes. The lease is checked last, as hashing may have taken long."""
    if lease is not None:
        lease.ensure_held()
    storage.filesystem.replace(storage.run.manifest_path, encode(manifest.model_dump(mode="json", by_alias=True)))


def rollback(
    filesystem: FileSystem,
    root: str,
    run_id: str | None = None,
    *,
    spark: SparkSession | None = None,
    should_hash: bool = False,
) -> Run:
    """Move the pointer to a published run: the given one, or the one before the current.

    The runs published after it are withdrawn: no later run builds upon them. To return to one of
    them, roll back to it by its id. The target's files are checked by size first, and with
    `should_hash` by SHA-256 too. Works while the pointer itself is broken, when a run id is given.

    Raises:
        UnknownRunError: when there is no such run, or it is not published; nothing has moved then.
        StorageError: when it is broken, or there is none to go back to; nothing has moved then.
    """
    published = sorted((info for info in runs_under(filesystem, root) if info.is_published), key=publication_order)
    target = _given(filesystem, root, published, run_id) if run_id else _previous(filesystem, root, published)
    require_after_forgotten(filesystem, root, target.run.run_id, target.created_at)
    problems = verify_run(filesystem, target.run, spark, should_hash=should_hash)
    if problems:
        shown, more = "; ".join(problems[:_SHOWN_PROBLEMS]), len(problems) - _SHOWN_PROBLEMS
        raise StorageError(f"run {target.run.run_id} is broken: {shown}" + (f"; and {more} more" if more > 0 else ""))
    filesystem.delete(target.run.withdrawn_path)
    point_to(filesystem, target.run)
    for info in published:
        if publication_order(info) > publication_order(target):
            withdrawn = {"withdrawn_at": to_iso(utc_now()), "in_favor_of": target.run.run_id}
            filesystem.replace(info.run.withdrawn_path, encode(withdrawn))
    return target.run


def verify_run(
    filesystem: FileSystem, run: Run, spark: SparkSession | None = None, *, should_hash: bool = True
) -> tuple[str, ...]:
    """What is wrong with the files of a published run: missing, extra, other size, other SHA-256; empty when sound."""
    try:
        manifest = read_manifest(filesystem, run)
    except StorageError as error:
        return (str(error),)
    found = _found_files(filesystem, run, manifest)
    expected = manifest.files
    problems = [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is not in the manifest" for path in found if path not in expected]
    problems += [
        f"{path} has {found[path]} bytes, expected {file.bytes}"
        for path, file in expected.items()
        if found.get(path, file.bytes) != file.bytes
    ]
    if should_hash:
        same_size = {path: size for path, size in found.items() if path in expected and expected[path].bytes == size}
        hashes = hash_files(filesystem, run, same_size, spark)
        problems += [f"{path} has another SHA-256" for path in hashes if hashes[path] != expected[path].sha256]
    names = (*manifest.tables, *manifest.folders)
    problems += [f"{name} has no receipt" for name in names if not filesystem.exists(run.receipt_path(name))]
    return tuple(problems)


def _found_files(filesystem: FileSystem, run: Run, manifest: Manifest) -> dict[str, int]:
    found: dict[str, int] = {}
    for names, read_sizes in ((manifest.tables, table_files), (manifest.folders, folder_files)):
        for name in names:
            try:
                found |= read_sizes(filesystem, run, name)
            except FileNotFoundError:
                continue
    return found


def _is_backfill(filesystem: FileSystem, run: Run) -> bool:
    current = current_run(filesystem, run.root)
    return current is not None and current.run_date > run.run_date


def _given(filesystem: FileSystem, root: str, published: list[RunInfo], run_id: str) -> RunInfo:
    for info in published:
        if info.run.run_id == run_id:
            return info
    known = [info.run.run_id for info in runs_under(filesystem, root)]
    if run_id in known:
        raise UnknownRunError(f"run {run_id} is not published: only an audited, published run can be made current")
    raise UnknownRunError(f"there is no run {run_id} under {root}: list them with recsys-spark list-runs")


def _previous(filesystem: FileSystem, root: str, published: list[RunInfo]) -> RunInfo:
    current = current_run(filesystem, root)
    if current is None:
        raise StorageError(f"no run is published under {root}: there is nothing to go back from")
    here = next((info for info in published if info.run.run_id == current.run_id), None)
    if here is None:
        raise StorageError(f"the current run {current.run_id} is gone from {root}: name the run to go back to")
    earlier = [
        info for info in published if publication_order(info) < publication_order(here) and not info.is_withdrawn
    ]
    if not earlier:
        raise StorageError(
            f"no run was published before the current run {current.run_id}: there is nothing to go back to"
        )
    return earlier[-1]
