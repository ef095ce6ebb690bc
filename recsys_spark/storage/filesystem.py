"""The few file operations that runs need, over local folders and over whatever Hadoop reaches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from pyspark.sql import SparkSession

from recsys_spark.errors import SettingsError
from recsys_spark.storage.file_status import FileStatus
from recsys_spark.storage.hadoop_filesystem import HadoopFileSystem
from recsys_spark.storage.local_filesystem import LocalFileSystem

# Two letters at least: a single one would be a Windows drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


class FileSystem(Protocol):
    """Files by path or URI. Failures are `OSError`s: `FileNotFoundError`, `FileExistsError`, or what else happened."""

    def qualify(self, path: str) -> str:
        """The absolute form of the path that Spark resolves to the same file."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Where this machine can open the path without a copy; None when it must be copied."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        ...

    def list(self, path: str) -> tuple[FileStatus, ...]:
        """The entries of a folder by name, hidden ones too. Raises FileNotFoundError, NotADirectoryError."""
        ...

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file. Raises FileNotFoundError."""
        ...

    def sha256(self, path: str) -> str:
        """Hexadecimal SHA-256 of a file of any size, streamed. Raises FileNotFoundError."""
        ...

    def create(self, path: str, content: bytes) -> None:
        """Write a new file, making its folders: of several racers one wins, the others get FileExistsError."""
        ...

    def replace(self, path: str, content: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, whole, and never a gap."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; nothing happens when it is not there."""
        ...

    def make_directories(self, path: str) -> None:
        """Make a folder and those above it; nothing happens when it is there."""
        ...

    def copy_to_local(self, path: str, target: Path) -> None:
        """Copy a file or folder to a new local path, whole or not at all. Raises FileExistsError."""
        ...

    def copy_from_local(self, source: Path, path: str) -> None:
        """Copy a local file or folder to a new path; a folder grows visibly. Raises FileExistsError."""
        ...


def entries_of(filesystem: FileSystem, folder: str) -> tuple[FileStatus, ...]:
    """The entries of a folder by name, hidden ones too; none where there is no folder."""
    try:
        return filesystem.list(folder)
    except FileNotFoundError:
        return ()


def names_local_folder(root: str) -> bool:
    """Whether a root is a local folder by its own words; without a scheme a session may still take it for another."""
    match = _SCHEME.match(root)
    return match is None or match.group(1).lower() == "file"


def open_filesystem(root: str, spark: SparkSession | None = None) -> FileSystem:
    """The file system of a root; without a scheme it is the one Spark would take (local without a session).

    Raises:
        SettingsError: when the scheme needs a Spark session, or Hadoop knows no file system for it.
    """
    match = _SCHEME.match(root)
    scheme = match.group(1).lower() if match else _default_scheme(spark)
    if scheme == "file":
        return LocalFileSystem()
    if spark is None:
        raise SettingsError(f"storage.root {root!r} is not a local folder: it needs a Spark session to be reached")
    return HadoopFileSystem(spark, root)


def _default_scheme(spark: SparkSession | None) -> str:
    """On most clusters a path without a scheme is on HDFS, and Spark would write the tables there."""
    jvm: Any = getattr(spark, "_jvm", None)
    if spark is None or jvm is None:
        return "file"
    conf = spark._jsparkSession.sessionState().newHadoopConf()
    return str(jvm.org.apache.hadoop.fs.FileSystem.getDefaultUri(conf).getScheme())
