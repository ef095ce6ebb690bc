"""Similar users and similar items: the nearest by Euclidean distance of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.blocks import lists_of
from recsys_spark.blockwise.files import MappedArray, MappedStrings, distribute_array, save_array, shard_rows
from recsys_spark.blockwise.lists import packed_lists
from recsys_spark.blockwise.plan import Block, BlockMap, MovedBlocks
from recsys_spark.kernels.bounds import ItemBounds, bounds_of_any_order
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.topk import TopK, merge_top_k
from recsys_spark.tables import Table

_MARGIN = 16  # shortlisted beyond k at float32, then ordered by float64 distances
_CHUNK_ROWS = 1 << 16
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class VectorShard:
    """Consecutive embeddings, (n, dims + 1) float32: v and -|v|^2 / 2, with their bounds.

    `first` is the place of the first among all.
    """

    first: int
    n_rows: int
    vectors: MappedArray
    bounds: ItemBounds


@dataclass(frozen=True)
class EmbeddedEntities:
    """All users or items that have an embedding, by ascending position, with their external ids."""

    shards: tuple[VectorShard, ...]
    ids: MappedStrings

    def ranges(self) -> list[tuple[int, int, int]]:
        """Query blocks: shard, first row and end row within it."""
        return [
            (number, start, min(start + _BLOCK_ROWS, shard.n_rows))
            for number, shard in enumerate(self.shards)
            for start in range(0, shard.n_rows, _BLOCK_ROWS)
        ]


def distribute_entities(
    spark: SparkSession, vectors: NDArray[np.float32], ids: MappedStrings, scratch: Path, shard_bytes: int
) -> EmbeddedEntities:
    """Hand embeddings, (n, dims) by ascending position, to the executors; `ids` are theirs in the same order."""
    scratch.mkdir(parents=True, exist_ok=True)
    shards = []
    for start, end in shard_rows(len(vectors), 4 * (vectors.shape[1] + 1), shard_bytes):
        part = vectors[start:end]
        half_norms = np.square(part.astype(np.float64)).sum(axis=1, keepdims=True) / 2.0
        augmented = np.hstack([part, -half_norms]).astype(np.float32)
        path = save_array(scratch / f"vectors-{start}.npy", augmented)
        shards.append(VectorShard(start, end - start, distribute_array(spark, path), bounds_of_any_order(augmented)))
    return EmbeddedEntities(tuple(shards), ids)


def find_similar(spark: SparkSession, entities: EmbeddedEntities, k: int, table: Table) -> BlockMap:
    """The k nearest entities of each entity, as `similar_users` or `similar_items`.

    u.v - |v|^2 / 2 = (|u|^2 - d^2) / 2, so the scoring kernel finds the nearest; the distances written are
    float64 of the float32 embeddings, ties by the smaller position.
    """

    def search(block: Block) -> pa.RecordBatch:
        number, start, end = (block.column(name)[0].as_py() for name in ("shard", "start", "end"))
        shard = entities.shards[number]
        nearest = _nearest(entities, shard.vectors.load()[start:end], shard.first + start, k)
        lists, distances = packed_lists(nearest)
        columns = [
            entities.ids.take(pa.array(range(shard.first + start, shard.first + end))),
            lists_of(lists, pa.array(lists.indices)),
            lists_of(lists, pa.array(distances)),
        ]
        return pa.record_batch(columns, names=table.schema.names)

    blocks = spark.createDataFrame(entities.ranges(), "shard int, start int, end int")
    _, similar, _ = table.schema.names
    return BlockMap(MovedBlocks((blocks,)), blocks.columns, search, table.schema, names={similar: entities.ids})


def _nearest(entities: EmbeddedEntities, augmented: NDArray[np.float32], first: int, k: int) -> TopK:
    """The k nearest of all entities to consecutive ones, of which the first is at place `first`."""
    queries = np.array(augmented)  # a copy: the mapped file is read-only
    queries[:, -1] = 1.0
    found = None
    for shard in entities.shards:
        nearest = _nearest_in(shard, queries, first, k)
        found = nearest if found is None else merge_top_k(found, nearest, k, largest=False)
    assert found is not None  # noqa: S101 - there is at least one shard
    return found


def _nearest_in(shard: VectorShard, queries: NDArray[np.float32], first: int, k: int) -> TopK:
    themselves = np.arange(first, first + len(queries))
    itself = IndexLists(np.arange(len(queries) + 1), themselves)
    best = score_top_k(queries, shard.vectors.load(), itself, k + _MARGIN, shard.first, bounds=shard.bounds)
    exact = _measured(queries, shard, best)
    nearest = TopK(exact.indices[:, :k], exact.scores[:, :k])
    for row in np.flatnonzero(~_is_certain(queries, shard, best, nearest)):
        nearest.indices[row], nearest.scores[row] = _nearest_of_all(queries[row], shard, themselves[row], k)
    return nearest


def _measured(queries: NDArray[np.float32], shard: VectorShard, best: TopK) -> TopK:
    """The shortlist with float64 distances, nearest first."""
    vectors = shard.vectors.load()
    distances = np.full(best.indices.shape, np.inf)
    for slot in range(best.indices.shape[1]):
        is_found = best.indices[:, slot] >= 0
        distances[is_found, slot] = _distances(queries[is_found], vectors[best.indices[is_found, slot] - shard.first])
    order = np.lexsort((best.indices, distances), axis=-1)
    return TopK(np.take_along_axis(best.indices, order, 1), np.take_along_axis(distances, order, 1))


def _distances(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row by row, or from one query to all, (n,)."""
    gaps = queries[..., :-1].astype(np.float64) - vectors[:, :-1]
    distances: NDArray[np.float64] = np.sqrt(np.square(gaps).sum(axis=1))
    return distances


def _is_certain(queries: NDArray[np.float32], shard: VectorShard, best: TopK, nearest: TopK) -> NDArray[np.bool_]:
    """Whether nothing that is not on the shortlist can be as near as the k-th, (q,).

    It scores no more than the last one listed. float32 takes at most 2^-24 of a score and of a halved squared norm
    from them, and the squared distance is off by twice that; twice as much is allowed for.
    """
    last, largest_half_norm = best.scores[:, -1].astype(np.float64), float(shard.bounds.widths[-1])
    norms = np.square(queries[:, :-1].astype(np.float64)).sum(axis=1)
    is_complete = best.indices[:, -1] < 0
    with np.errstate(invalid="ignore"):  # of what a complete list is padded with
        beyond = norms - 2.0 * last - 2.0**-22 * (np.abs(last) + largest_half_norm)
    certain: NDArray[np.bool_] = is_complete | (np.square(nearest.scores[:, -1]) < beyond)
    return certain


def _nearest_of_all(
    query: NDArray[np.float32], shard: VectorShard, itself: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest by the distances of all, 8 bytes each: where too many are at nearly one distance."""
    vectors = shard.vectors.load()
    starts = range(0, shard.n_rows, _CHUNK_ROWS)
    distances = np.concatenate([_distances(query, vectors[start : start + _CHUNK_ROWS]) for start in starts])
    if 0 <= itself - shard.first < shard.n_rows:
        distances[itself - shard.first] = np.inf
    near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    order = near[np.lexsort((near, distances[near]))][:k]
    return order + shard.first, distances[order]
