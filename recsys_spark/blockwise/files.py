"""Candidate files: written once on the driver, fetched once by each host, mapped by every worker."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkFiles
from pyspark.sql import SparkSession


@dataclass(frozen=True)
class MappedArray:
    """The name of a distributed `.npy` file; `load` maps it, once a task: the name alone travels."""

    name: str

    def load(self) -> NDArray[Any]:
        """Map the file read-only: the pages are shared by all workers of the host."""
        return self._mapped

    @cached_property
    def _mapped(self) -> NDArray[Any]:
        array: NDArray[Any] = np.load(SparkFiles.get(self.name), mmap_mode="r", allow_pickle=False)
        return array

    def __reduce__(self) -> tuple[type[MappedArray], tuple[str]]:
        return MappedArray, (self.name,)


@dataclass(frozen=True)
class MappedStrings:
    """The name of a distributed Arrow file with one column of strings; it is mapped once a task."""

    name: str

    def load(self) -> pa.ChunkedArray:
        """Map the file read-only: no string is copied until it is taken."""
        return self._mapped

    def take(self, positions: pa.Array) -> pa.StringArray:
        """The strings at these positions."""
        return self.load().take(positions).combine_chunks().cast(pa.string())

    @cached_property
    def _mapped(self) -> pa.ChunkedArray:
        return pa.ipc.open_file(pa.memory_map(SparkFiles.get(self.name))).read_all().column(0)

    def __reduce__(self) -> tuple[type[MappedStrings], tuple[str]]:
        return MappedStrings, (self.name,)


def distribute_array(spark: SparkSession, path: Path) -> MappedArray:
    """Hand a local `.npy` file to all executors; the file must outlive the session."""
    return MappedArray(_distribute(spark, path))


def distribute_strings(spark: SparkSession, path: Path) -> MappedStrings:
    """Hand a local Arrow file, made by `write_strings`, to all executors."""
    return MappedStrings(_distribute(spark, path))


def write_strings(path: Path, chunks: Iterator[pa.Array]) -> Path:
    """Write strings as one Arrow file, a chunk at a time; 64-bit offsets, so the column may pass 2 GB."""
    schema = pa.schema([("value", pa.large_string())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for chunk in chunks:
            writer.write_batch(pa.record_batch([chunk.cast(pa.large_string())], schema=schema))
    return path


def save_array(path: Path, array: NDArray[Any]) -> Path:
    """Write an array as `.npy`."""
    np.save(path, array, allow_pickle=False)
    return path


def shard_rows(n_rows: int, row_bytes: int, shard_bytes: int) -> Sequence[tuple[int, int]]:
    """Row ranges whose files stay within a size; at least one range, each of at least one row."""
    step = max(1, shard_bytes // max(1, row_bytes))
    return [(start, min(start + step, n_rows)) for start in range(0, max(n_rows, 1), step)]


def save_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Path]:
    """Write named arrays into a folder, made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: save_array(folder / f"{name}.npy", array) for name, array in arrays.items()}


def _distribute(spark: SparkSession, path: Path) -> str:
    """Give the file a name of its own: Spark's file server refuses two paths of one name in a session."""
    name = f"{path.stem}-{secrets.token_hex(8)}{path.suffix}"
    named = path.with_name(name)
    path.rename(named)
    spark.sparkContext.addFile(str(named))
    return name
