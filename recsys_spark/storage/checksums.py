"""Sizes and SHA-256 of a run's files: on the executors where Spark can read them whole, else on the driver."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.storage.filesystem import FileSystem
from recsys_spark.storage.parquet import LITERAL_PATHS
from recsys_spark.storage.paths import Run

# `binaryFile` holds a file in the memory of a task, about three times over; above 2 GB it fails.
_SPARK_LIMIT_BYTES = 128 << 20
_DRIVER_THREADS = 4
_HIDDEN = ("_", ".")


def table_files(filesystem: FileSystem, run: Run, name: str) -> dict[str, int]:
    """Bytes of each file of a table by path relative to the run; what Spark's readers skip is left out."""
    return _walk(filesystem, run.table_path(name), name, _HIDDEN)


def folder_files(filesystem: FileSystem, run: Run, name: str) -> dict[str, int]:
    """Bytes of each file of a folder by path relative to the run."""
    return _walk(filesystem, run.table_path(name), name, ())


def hash_files(
    filesystem: FileSystem, run: Run, sizes: Mapping[str, int], spark: SparkSession | None = None
) -> dict[str, str]:
    """SHA-256 of each file by path relative to the run. Without Spark, or for large files, the driver streams."""
    hashes = _hash_on_executors(spark, run, sizes) if spark is not None and sizes else {}
    rest = [path for path in sizes if path not in hashes]
    with ThreadPoolExecutor(_DRIVER_THREADS) as pool:
        streamed = pool.map(lambda path: filesystem.sha256(f"{run.path}/{path}"), rest)
        return hashes | dict(zip(rest, streamed, strict=True))


def _hash_on_executors(spark: SparkSession, run: Run, sizes: Mapping[str, int]) -> dict[str, str]:
    """Hidden files and files over the limit are not in the answer; the latter are not read either."""
    folders = sorted({path.partition("/")[0] for path in sizes})
    options = {"recursiveFileLookup": "true", **LITERAL_PATHS}
    files = spark.read.format("binaryFile").options(**options).load([run.table_path(name) for name in folders])
    small = files.where(F.col("length") <= _SPARK_LIMIT_BYTES)
    hashed = small.select("path", F.sha2("content", 256).alias("sha256")).collect()
    found = {_relative(run, row["path"]): str(row["sha256"]) for row in hashed}
    return {path: sha256 for path, sha256 in found.items() if path in sizes}


def _relative(run: Run, path: str) -> str:
    """Spark spells the root its own way, so only what follows the run's folder is compared."""
    return path.rpartition(f"/{run.relative_path}/")[2]


def _walk(filesystem: FileSystem, folder: str, prefix: str, hidden: tuple[str, ...]) -> dict[str, int]:
    """Raises FileNotFoundError when the folder is not there."""
    sizes: dict[str, int] = {}
    for entry in filesystem.list(folder):
        path = f"{prefix}/{entry.name}"
        if entry.name.startswith(hidden):
            continue
        if entry.is_directory:
            sizes |= _walk(filesystem, f"{folder}/{entry.name}", path, hidden)
        else:
            sizes[path] = entry.size
    return sizes
