"""Scorers of models of a size, and a block that they score, in memory and without a night."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.jobs import World
from recsys_spark.blockwise.blocks import binary_cell
from recsys_spark.blockwise.files import MappedArray, MappedStrings
from recsys_spark.blockwise.profiles import EmbeddedProfile
from recsys_spark.blockwise.reasons import EmbeddedItems, PooledItems, Source, VotingUsers, WeighingItems
from recsys_spark.blockwise.scorers import (
    EmbeddingScorer,
    ItemShard,
    ItemVectors,
    ItemWeights,
    ItemWeightScorer,
    NeighborScorer,
    PopularityScorer,
    Scorer,
)
from recsys_spark.blockwise.user_rows import ItemRange, RowShard
from recsys_spark.kernels.bounds import bounds_of_any_order
from recsys_spark.kernels.csr import CsrRows, joined_rows
from recsys_spark.kernels.layout import EXTRA_COLUMNS
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side

NEIGHBORS, NEIGHBOR_USERS = 50, 20_480
LOSS = WholeDataLoss(0.01, 0.01)


class Model(NamedTuple):
    """A block with the columns that a scorer reads, the scorer, and what explains it."""

    block: pa.RecordBatch
    scorer: Scorer
    source: Source


def held(array: Any) -> MappedArray:
    """An array in memory as the workers see those that are mapped."""
    mapped = MappedArray("held")
    mapped.__dict__["_mapped"] = array
    return mapped


def named(strings: Any) -> MappedStrings:
    """The same of strings."""
    mapped = MappedStrings("held")
    mapped.__dict__["_mapped"] = pa.chunked_array([pa.array(list(strings), pa.large_string())])
    return mapped


def one_shard(vectors: np.ndarray) -> ItemVectors:
    """All items as candidates, in their order."""
    places = np.arange(len(vectors), dtype=np.int32)
    shard = ItemShard(0, held(vectors), bounds_of_any_order(vectors))
    return ItemVectors((shard,), held(places), held(places))


def embedded(items: int, block: pa.RecordBatch, is_pooled: bool = False) -> Model:
    """Products with vectors as long as those of a model, by least squares or pooled users."""
    vectors = World(1, items).item_vectors() / 8
    padding = np.zeros((items, EXTRA_COLUMNS), np.float32)
    users = np.frombuffer(block.column("vectors")[0].as_buffer(), np.float32).reshape(-1, vectors.shape[1]) / 4
    cell = binary_cell(np.hstack([users, np.zeros((len(users), EXTRA_COLUMNS), np.float32)]))
    block = block.set_column(block.schema.get_field_index("vectors"), "vectors", cell)
    fixed, flags = (
        fixed_side(vectors),
        {"is_trained": held(np.ones(items, bool)), "is_new": held(np.zeros(items, bool))},
    )
    if is_pooled:
        source: Source = PooledItems(held(vectors), is_unit=True, **flags)
    else:
        turned = {"vectors": held(fixed.turned), "diagonal": held(fixed.diagonal), "axes": held(fixed.axes)}
        source = EmbeddedItems(loss=LOSS, users=EmbeddedProfile(vectors.shape[1]), **turned, **flags)
    return Model(block, EmbeddingScorer(one_shard(np.hstack([vectors, padding]))), source)


def weighed(items: int, block: pa.RecordBatch) -> Model:
    """Weights of items by items."""
    weights = np.random.default_rng(0).standard_normal((items, items), np.float32)
    places = held(np.arange(items, dtype=np.int32))
    chosen = ItemWeights(held(weights), places, places)
    return Model(block, ItemWeightScorer("ease", chosen, False, popular(items)), WeighingItems(chosen))


def voted(items: int, block: pa.RecordBatch, seen: int) -> Model:
    """Votes of 50 of 20,480 users."""
    parts = [
        CsrRows(*(np.frombuffer(each.column(name)[0].as_buffer(), kind) for name, kind in
                  (("indptr", np.int64), ("indices", np.int32), ("ratings", np.float32))), items)
        for each in World(NEIGHBOR_USERS, items, seen=seen).blocks()
    ]  # fmt: skip
    rows = joined_rows(parts)
    shard = RowShard(0, held(rows.indptr), held(rows.indices), held(rows.values))
    ranges = (ItemRange(0, items, shard),)
    random, n_users = np.random.default_rng(5), len(block.column("user_ids")[0])
    cells = {
        "neighbor_indptr": np.arange(0, NEIGHBORS * n_users + 1, NEIGHBORS, dtype=np.int64),
        "neighbor_indices": random.integers(0, NEIGHBOR_USERS, NEIGHBORS * n_users, dtype=np.int32),
        "similarities": random.random(NEIGHBORS * n_users, dtype=np.float32),
    }
    for name, array in cells.items():
        block = block.append_column(name, binary_cell(array))
    return Model(block, NeighborScorer(ranges, False, popular(items), "sum", 0.0), VotingUsers(ranges, None))


def popular(items: int) -> PopularityScorer:
    """What users without a list of their own would get."""
    return PopularityScorer(one_shard(np.ones((items, 1), np.float32)))
