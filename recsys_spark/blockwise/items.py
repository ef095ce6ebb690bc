"""Hands the item side of a model to the executors: candidate vectors in shards, and positions both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.files import (
    MappedArray,
    MappedStrings,
    distribute_array,
    distribute_strings,
    save_array,
    shard_rows,
    write_strings,
)
from recsys_spark.blockwise.scorers import ItemShard, ItemVectors
from recsys_spark.kernels.bounds import bounds_in_order, search_order, vector_norms


def distribute_items(
    spark: SparkSession,
    vectors: NDArray[np.float32],
    is_candidate: NDArray[np.bool_],
    scratch: Path,
    shard_bytes: int,
    n_apart: int = 0,
    factors: NDArray[np.float32] | None = None,
) -> ItemVectors:
    """Distribute the vectors, (n_items, dims), of the items that can be recommended, in `search_order`.

    `n_apart`: how many of the last dimensions bound scores better one by one, such as one that is the same for all.
    `factors`, (n_items,), multiply the scores; what has a factor of 0 is no candidate.
    Memory of the driver: one shard, and 32 bytes an item; disk there and on each host: 4 bytes x candidates x dims,
    and 8 an item.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    positions = np.flatnonzero(is_candidate if factors is None else is_candidate & (factors > 0)).astype(np.int32)
    positions = positions[search_order(vector_norms(vectors, n_apart)[positions])]
    places = np.full(len(is_candidate), -1, np.int32)
    places[positions] = np.arange(len(positions), dtype=np.int32)
    shards = []
    for start, end in shard_rows(len(positions), 4 * vectors.shape[1], shard_bytes):
        part = np.ascontiguousarray(vectors[positions[start:end]])
        path = save_array(scratch / f"items-{start}.npy", part)
        shards.append(ItemShard(start, distribute_array(spark, path), bounds_in_order(part, n_apart)))
    return ItemVectors(
        tuple(shards),
        distribute_array(spark, save_array(scratch / "positions.npy", positions)),
        distribute_array(spark, save_array(scratch / "places.npy", places)),
        _distribute_factors(spark, None if factors is None else factors[positions], scratch),
    )


def _distribute_factors(spark: SparkSession, factors: NDArray[np.float32] | None, scratch: Path) -> MappedArray | None:
    """Those of the candidates, where any of them is not 1."""
    if factors is None or bool((factors == 1).all()):
        return None
    return distribute_array(spark, save_array(scratch / "factors.npy", factors))


def distribute_ids(
    spark: SparkSession, folder: Path, name: str, scratch: Path, kept: NDArray[np.bool_] | None = None
) -> MappedStrings:
    """Distribute the external ids of an index in the order of their positions.

    Args:
        spark: the session.
        folder: local Parquet folder of `users` or `items`.
        name: `user` or `item`.
        scratch: where the file is written; it must outlive the session.
        kept: for each position whether its id is wanted; all are when None.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    idx, external = f"{name}_idx", f"{name}_id"
    index = pq.read_table(folder, columns=[idx, external]).sort_by(idx)
    if kept is not None:
        index = index.filter(pa.array(kept))
    return distribute_strings(spark, write_strings(scratch / f"{external}s.arrow", _chunks(index.column(external))))


def _chunks(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    yield from column.chunks or [pa.array([], pa.string())]
