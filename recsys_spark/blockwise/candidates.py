"""The best items of each component of a blend for users with validation items, beside what those were."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.blockwise.blocks import TRAIN, VALIDATION, items_in_splits, lists_of, user_positions
from recsys_spark.blockwise.hybrid import BlockBlend, HybridScorer
from recsys_spark.blockwise.plan import Block, BlockMap, Blocks
from recsys_spark.blockwise.ranking import union_of_best
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.tables import BLEND_CANDIDATES

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def collect_candidates(blocks: Blocks, scorer: HybridScorer, n_best: int, share: float, seed: int) -> BlockMap:
    """The table `blend_candidates` of a share of the users, those of the train split left out of their candidates.

    Memory of a task: that of the scorer, and at most 4 x (components + 1) x components x `n_best` bytes a user.
    """
    read = {"first_user_idx", *scorer.columns}

    def collect(block: Block) -> pa.RecordBatch:
        validation = items_in_splits(block, (VALIDATION,))
        history = scorer.history(block)
        positions = user_positions(block)
        is_chosen = (np.diff(validation.indptr) > 0) & (history > 0) & are_drawn(positions, share, seed)
        users = np.flatnonzero(is_chosen)
        relevant = validation.take_rows(users)
        lists, scores = _candidates(scorer, block, users, n_best)
        spans = IndexLists(lists.indptr * len(scorer.components), scores.ravel())
        columns = [
            pa.array(positions[users]),
            pa.array(history[users].astype(np.int32)),
            lists_of(lists, pa.array(lists.indices.astype(np.int32))),
            lists_of(spans, pa.array(spans.indices)),
            lists_of(relevant, pa.array(relevant.indices)),
        ]
        return pa.record_batch(columns, names=BLEND_CANDIDATES.schema.names)

    return BlockMap(blocks, read, collect, BLEND_CANDIDATES.schema)


def are_drawn(positions: NDArray[np.int32], share: float, seed: int) -> NDArray[np.bool_]:
    """Whether users are among a share that the seed draws: a hash of the position alone decides (SplitMix64)."""
    mixed = (positions.astype(np.uint64) + np.uint64(1) + np.uint64(seed) * np.uint64(1 << 32)) * _GOLDEN
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) < np.uint64(min(max(share, 0.0), 1.0) * (1 << 53)))


def _candidates(
    scorer: HybridScorer, block: Block, users: NDArray[np.int64], n_best: int
) -> tuple[IndexLists, NDArray[np.float32]]:
    """The union of each component's best items, ascending, of each user, and the scores, (items, components)."""
    if len(users) == 0:
        nothing = IndexLists(np.zeros(1, np.int64), np.zeros(0, np.int32))
        return nothing, np.zeros((0, len(scorer.components)), np.float32)
    blend, excluded = BlockBlend(scorer, block), items_in_splits(block, (TRAIN,)).take_rows(users)
    lists = union_of_best(blend.alone(users, excluded, n_best), len(users))
    return lists, blend.pairs(users, lists)
