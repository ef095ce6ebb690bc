"""Every user's list: a scorer over the blocks, as recommendations with external ids or as lists to measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegerType, StructField, StructType

from recsys_spark.blockwise.blocks import TEST, TRAIN, VALIDATION, items_in_splits, lists_of, nothing, user_positions
from recsys_spark.blockwise.diversity import Diversity
from recsys_spark.blockwise.explanations import ListReasons, no_reasons
from recsys_spark.blockwise.files import MappedStrings
from recsys_spark.blockwise.plan import Block, BlockMap, Blocks
from recsys_spark.blockwise.rules import ListRules, left_out, no_rules_of
from recsys_spark.blockwise.scorers import SEEN_COLUMNS, Scorer
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.topk import TopK
from recsys_spark.tables import RECOMMENDATIONS

_POSITIONS = ArrayType(IntegerType(), containsNull=False)
MEASURED_LISTS = StructType(
    [
        StructField("user_idx", IntegerType(), nullable=False),
        StructField("item_idxs", _POSITIONS, nullable=False),
        StructField("relevant_idxs", _POSITIONS, nullable=False),
    ]
)
"""Lists to measure: what was recommended, best first, beside what was held out, ascending."""

_RERANKED = StructField("reranked_idxs", _POSITIONS, nullable=False)


def recommend(
    blocks: Blocks,
    scorer: Scorer,
    item_ids: MappedStrings,
    k: int,
    exclude_seen: bool = True,
    reasons: ListReasons | None = None,
    rules: ListRules | None = None,
) -> BlockMap:
    """The table `recommendations`: k best items of each user of `blocks`, seen items (all splits) left out.

    With `reasons` for each item of the lists, from the same pass. With `rules` their lists hide what these hide, and
    are as long and of the users as these say.

    Memory of a task: its block, one tile of scores and 12 bytes x k x users of the block.
    """
    read = {"user_ids", *scorer.columns, *(SEEN_COLUMNS if exclude_seen else ())}
    read |= set(() if reasons is None else reasons.columns) | set(() if rules is None else rules.columns)

    def score(block: Block) -> pa.RecordBatch:
        user_ids, n_items = block.column("user_ids").flatten(), len(item_ids.load())
        ruled = rules.of(block, k) if rules is not None else no_rules_of(_seen_items(block, exclude_seen), k)
        scored = ruled.shortened(scorer(block, ruled.hidden, k))
        lists, scores = packed_lists(scored.best)
        columns = [
            user_ids,
            lists_of(lists, pa.array(lists.indices)),
            lists_of(lists, pa.array(scores)),
            pa.array(scored.tiers.tolist(), pa.string()),
            left_out(np.diff(lists.indptr), ruled, n_items),
            *(no_reasons(len(user_ids)) if reasons is None else reasons.of(block, scored)),
        ]
        return ruled.of_wanted(pa.record_batch(columns, names=RECOMMENDATIONS.schema.names))

    names = {"item_ids": item_ids, **({} if reasons is None else reasons.names(item_ids))}
    return BlockMap(blocks, read, score, RECOMMENDATIONS.schema, names=names)


def _seen_items(block: Block, exclude_seen: bool) -> IndexLists:
    every = (TRAIN, VALIDATION, TEST)
    return items_in_splits(block, every) if exclude_seen else nothing(len(block.column("user_ids").flatten()))


def measure_lists(blocks: Blocks, scorer: Scorer, k: int, diversity: Diversity | None = None) -> DataFrame:
    """Lists for users with held-out (test) items, items of the train and validation splits left out.

    With `diversity` they have `reranked_idxs` too, which `reranked` takes: both come from one search of the items.
    """
    width = k if diversity is None else max(k, diversity.candidates)
    schema = MEASURED_LISTS if diversity is None else StructType([*MEASURED_LISTS.fields, _RERANKED])
    read = {"first_user_idx", *SEEN_COLUMNS, *scorer.columns}

    def score(block: Block) -> pa.RecordBatch:
        best = scorer(block, items_in_splits(block, (TRAIN, VALIDATION)), width).best
        relevant = items_in_splits(block, (TEST,))
        has_relevant = np.diff(relevant.indptr) > 0
        kept = TopK(best.indices[has_relevant], best.scores[has_relevant])
        sizes = np.diff(relevant.indptr)[has_relevant]
        relevant = IndexLists(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), relevant.indices)
        columns = [
            pa.array(user_positions(block)[has_relevant]),
            _item_lists(TopK(kept.indices[:, :k], kept.scores[:, :k])),
            lists_of(relevant, pa.array(relevant.indices)),
            *(() if diversity is None else (_item_lists(diversity.rerank(kept, k)),)),
        ]
        return pa.record_batch(columns, names=schema.names)

    return BlockMap(blocks, read, score, schema).frame()


def _item_lists(best: TopK) -> pa.ListArray:
    lists, _ = packed_lists(best)
    return lists_of(lists, pa.array(lists.indices.astype(np.int32)))


def reranked(lists: DataFrame) -> DataFrame:
    """The re-ranked ones of `measure_lists`, as lists to measure."""
    return lists.select("user_idx", F.col("reranked_idxs").alias("item_idxs"), "relevant_idxs")


@contextmanager
def scored_once(lists: DataFrame) -> Iterator[DataFrame]:
    """The lists, computed once while the block runs, however often they are read; Spark keeps or spills them."""
    try:
        yield lists.persist()
    finally:
        lists.unpersist()


def packed_lists(best: TopK) -> tuple[IndexLists, NDArray[Any]]:
    """The lists without their padding, one after the other, and their scores."""
    is_item = best.indices >= 0
    if is_item.all():
        indptr = np.arange(0, best.indices.size + 1, best.indices.shape[1], dtype=np.int64)
        return IndexLists(indptr, best.indices.ravel()), best.scores.ravel()
    indptr = np.concatenate([[0], np.cumsum(is_item.sum(axis=1))]).astype(np.int64)
    return IndexLists(indptr, best.indices[is_item]), best.scores[is_item]
