"""Each user's nearest users by exact Euclidean distance over the behavior vectors, by blocks.

d(u, v) = sqrt(sum_i (u_i - v_i)^2) over all items, unrated ones being 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.blockwise.blocks import binary_cell, single_blocks, user_positions
from recsys_spark.blockwise.plan import BlockMap, Blocks
from recsys_spark.blockwise.user_rows import ROW_COLUMNS, UserRows
from recsys_spark.errors import SettingsError
from recsys_spark.kernels.csr import joined_rows
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.similarity import Similarity
from recsys_spark.kernels.topk import TopK, merge_top_k
from recsys_spark.tables import NEIGHBOR_BLOCKS, USER_NEIGHBORS

BLOCKS_AT_ONCE = 8
"""Blocks searched together: what a search prepares of the candidates is prepared once for all of them."""

MOST_NEIGHBORS_AT_ONCE = 500  # with longer lists, those of one block are enough to hold

MOST_USERS_FOR_ALL = 20_000
"""All neighbors of m users are m x (m - 1) rows: 400 million for this many."""


def neighbor_count(k: int | Literal["all"], n_users: int) -> int:
    """Neighbors to keep a user: `k`, or all others.

    Raises:
        SettingsError: for `all` of more users than a full matrix is sensible for.
    """
    if k != "all":
        return min(k, max(n_users - 1, 1))
    if n_users > MOST_USERS_FOR_ALL:
        raise SettingsError(
            f"neighbors.k = 'all' writes users x (users - 1) rows, {n_users * (n_users - 1):,} for {n_users:,} users; "
            f"it is refused above {MOST_USERS_FOR_ALL:,} users: set neighbors.k to a number"
        )
    return max(n_users - 1, 1)


def find_neighbors(blocks: Blocks, rows: UserRows, k: int, similarity: Similarity) -> BlockMap:
    """The table `user_neighbors`: k nearest users of each user of `blocks`, ties by the smaller position.

    Memory of a task: its blocks at once, one tile of candidates and 16 bytes x k x users of the blocks.
    """

    def search(some: pa.RecordBatch) -> pa.RecordBatch:
        users = np.concatenate([user_positions(block) for block in single_blocks(some)])
        return _neighbor_rows(nearest_users(some, users, rows, k), users, similarity)

    at_once = BLOCKS_AT_ONCE if k <= MOST_NEIGHBORS_AT_ONCE else 1
    return BlockMap(blocks, ROW_COLUMNS, search, USER_NEIGHBORS.schema, at_once)


def nearest_users(some: pa.RecordBatch, users: NDArray[np.int32], rows: UserRows, k: int) -> TopK:
    """The k nearest users of each user of some blocks, over all shards."""
    queries = joined_rows([rows.of(block) for block in single_blocks(some)])
    found = None
    for shard in rows.shards:
        nearest = nearest_rows(queries, users, shard.load(rows.n_items), shard.first_user, k)
        found = nearest if found is None else merge_top_k(found, nearest, k, largest=False)
    assert found is not None  # noqa: S101 - there is at least one shard
    return found


def pack_neighbors(blocks: DataFrame, neighbors: DataFrame) -> DataFrame:
    """The table `neighbor_blocks`: the rows of `user_neighbors` in the blocks of `user_blocks`."""
    spans = blocks.select("block_id", "first_user_idx", (F.octet_length("indptr") / 8 - 1).cast("int").alias("users"))
    # The first block is the longest: only the last one may hold fewer users.
    longest = spans.agg(F.max("users").alias("block_users"))
    placed = neighbors.crossJoin(F.broadcast(longest)).select(
        F.floor(F.col("user_idx") / F.col("block_users")).cast("int").alias("block_id"),
        "user_idx",
        "rank",
        "neighbor_idx",
        "similarity",
    )
    groups = spans.groupBy("block_id").cogroup(placed.groupBy("block_id"))
    return groups.applyInArrow(_pack, NEIGHBOR_BLOCKS.schema)


def _pack(span: pa.Table, neighbors: pa.Table) -> pa.Table:
    first, users = (span.column(name)[0].as_py() for name in ("first_user_idx", "users"))
    neighbors = neighbors.sort_by([("user_idx", "ascending"), ("rank", "ascending")])
    counts = np.bincount(neighbors.column("user_idx").to_numpy() - first, minlength=users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    arrays = {
        "neighbor_indptr": indptr,
        "neighbor_indices": neighbors.column("neighbor_idx").to_numpy().astype(np.int32),
        "similarities": neighbors.column("similarity").to_numpy().astype(np.float32),
    }
    binaries = {name: binary_cell(array) for name, array in arrays.items()}
    return pa.table({"block_id": span.column("block_id"), **binaries})


def _neighbor_rows(nearest: TopK, users: NDArray[np.int32], similarity: Similarity) -> pa.RecordBatch:
    is_neighbor = nearest.indices >= 0
    ranks = np.broadcast_to(np.arange(1, nearest.indices.shape[1] + 1, dtype=np.int32), nearest.indices.shape)
    distances = nearest.scores[is_neighbor]
    columns = [
        np.repeat(users, is_neighbor.sum(axis=1)),
        nearest.indices[is_neighbor].astype(np.int32),
        distances,
        similarity.of(distances),
        ranks[is_neighbor],
    ]
    return pa.record_batch([pa.array(column) for column in columns], names=USER_NEIGHBORS.schema.names)
