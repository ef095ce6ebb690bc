"""The manifest of a published run: what it holds, and what it was made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from recsys_spark.storage.checksums import folder_files, hash_files, table_files
from recsys_spark.storage.errors import StorageError
from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.paths import Run
from recsys_spark.storage.provenance import code_sha256, code_version, library_versions
from recsys_spark.storage.receipts import Receipt, read_receipts
from recsys_spark.storage.records import decode, utc_now
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import read_run_record

FORMAT_VERSION = 1
_SECRET_KEY = re.compile(r"secret|pass(word|wd|phrase)|token|credential|(access|account|api).?key", re.IGNORECASE)
_SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]+:[^/@\s]+(?=@)")


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads out of the run")
    return path


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class FileEntry(_Entry):
    """A file, its path relative to the run."""

    path: Annotated[str, AfterValidator(_inside)]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TableEntry(_Entry):
    """A table; `columns` is its Spark schema as JSON, written as `schema`."""

    columns: dict[str, Any] = Field(alias="schema")
    rows: int = Field(ge=0)
    is_published: bool
    files: tuple[FileEntry, ...]


class FolderEntry(_Entry):
    """A folder of files, such as the model."""

    files: tuple[FileEntry, ...]


class Code(_Entry):
    """The code that published the run."""

    version: str
    sha256: str


class Manifest(_Entry):
    """`_MANIFEST.json`."""

    format_version: Literal[1]
    run_id: str
    run_date: date
    parent: str | None
    created_at: datetime
    published_at: datetime
    tables: dict[str, TableEntry]
    folders: dict[str, FolderEntry]
    input: dict[str, Any]
    settings: dict[str, Any]
    settings_digest: str
    code: Code
    seeds: dict[str, int]
    libraries: dict[str, str]
    metrics: dict[str, Any]
    steps: dict[str, Any]

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every file by its path relative to the run."""
        listed = [entry.files for entry in self.tables.values()] + [entry.files for entry in self.folders.values()]
        return {file.path: file for files in listed for file in files}


def describe_run(
    storage: RunStorage,
    *,
    input_snapshot: Mapping[str, Any],
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    seeds: Mapping[str, int] | None = None,
) -> Manifest:
    """The manifest of a complete run; reads every file once, for its hash. Secrets in the settings are masked.

    Raises:
        StorageError: when the run holds nothing, or a table or folder that was not finished.
    """
    record = read_run_record(storage.filesystem, storage.run)
    tables, folders = _contents(storage)
    return Manifest(
        format_version=FORMAT_VERSION,
        run_id=storage.run.run_id,
        run_date=storage.run.run_date,
        parent=storage.run.parent,
        created_at=record["created_at"],
        published_at=utc_now(),
        tables=tables,
        folders=folders,
        input=dict(input_snapshot),
        settings=_masked(settings),
        settings_digest=record["settings_digest"],
        code=Code(version=code_version(), sha256=code_sha256()),
        seeds=dict(seeds) if seeds is not None else {"seed": record["seed"]},
        libraries=library_versions(),
        metrics=dict(metrics),
        steps={step: storage.step_record(step) for step in storage.finished_steps()},
    )


def read_manifest(filesystem: FileSystem, run: Run) -> Manifest:
    """The manifest of a published run.

    Raises:
        StorageError: when the run is not published, or its manifest is broken or of another format.
    """
    path = run.manifest_path
    try:
        record = decode(filesystem.read_bytes(path), path)
    except FileNotFoundError as error:
        raise StorageError(f"run {run.run_id} of {run.run_date} is not published: it has no {path}") from error
    if record.get("format_version") != FORMAT_VERSION:
        raise StorageError(f"{path} has format version {record.get('format_version')!r}, expected {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate(record)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise StorageError(f"{path} is broken at {key}: {problem['msg']}") from error
    if manifest.run_id != run.run_id:
        raise StorageError(f"{path} is the manifest of run {manifest.run_id}, not of {run.run_id}")
    return manifest


def _contents(storage: RunStorage) -> tuple[dict[str, TableEntry], dict[str, FolderEntry]]:
    filesystem, run = storage.filesystem, storage.run
    receipts = read_receipts(filesystem, run)
    _require_finished(filesystem, run, receipts)
    sizes = {receipt.name: _sizes(filesystem, run, receipt) for receipt in receipts}
    every = {path: size for files in sizes.values() for path, size in files.items()}
    hashes = hash_files(filesystem, run, every, storage.spark)
    entries = {
        name: tuple(FileEntry(path=path, bytes=size, sha256=hashes[path]) for path, size in sorted(files.items()))
        for name, files in sizes.items()
    }
    tables = {
        receipt.name: _table_entry(receipt, entries[receipt.name]) for receipt in receipts if receipt.kind == "table"
    }
    folders = {
        receipt.name: FolderEntry(files=entries[receipt.name]) for receipt in receipts if receipt.kind == "folder"
    }
    return tables, folders


def _table_entry(receipt: Receipt, files: tuple[FileEntry, ...]) -> TableEntry:
    return TableEntry(
        columns=dict(receipt.schema or {}), rows=receipt.rows or 0, is_published=receipt.is_published, files=files
    )


def _sizes(filesystem: FileSystem, run: Run, receipt: Receipt) -> dict[str, int]:
    read_sizes = table_files if receipt.kind == "table" else folder_files
    try:
        return read_sizes(filesystem, run, receipt.name)
    except FileNotFoundError as error:
        raise StorageError(f"{receipt.name} of run {run.run_id} was removed after it was written") from error


def _require_finished(filesystem: FileSystem, run: Run, receipts: tuple[Receipt, ...]) -> None:
    """Readers who know the layout would take a half-written folder of a published run for a table."""
    names = {entry.name for entry in filesystem.list(run.path) if not entry.name.startswith(("_", "."))}
    unfinished = sorted(names - {receipt.name for receipt in receipts})
    if unfinished:
        raise StorageError(f"run {run.run_id} holds unfinished {', '.join(unfinished)}: run the steps that write them")
    if not receipts:
        raise StorageError(f"run {run.run_id} holds nothing to publish")


def _masked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without secrets, as the manifest is for many eyes: by key, and user and password in URLs."""
    return {
        key: "***" if isinstance(value, str) and _SECRET_KEY.search(key) else _mask(value)
        for key, value in settings.items()
    }


def _mask(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _masked(value)
    if isinstance(value, list | tuple):
        return [_mask(item) for item in value]
    return _SECRET_IN_URL.sub("***", value) if isinstance(value, str) else value
