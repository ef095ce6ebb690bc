"""What users have had since their lists were published, and those lists by position, to be measured by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.blockwise.blocks import lists_of
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.lists import packed_lists
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.ranked import put_first
from recsys_spark.kernels.topk import empty_top_k
from recsys_spark.metrics.measure import index_lists

_PAIR = ["user_idx", "item_idx"]
_LISTS = "user_idx int, tier string, item_idxs array<int>, relevant_idxs array<int>, popular_idxs array<int>"


def find_new_pairs(interactions: DataFrame, earlier: DataFrame, with_repeats: bool) -> DataFrame:
    """The pairs `user_idx, item_idx` that the earlier interactions do not hold.

    With repeats also those that were had again: their newest event is newer, or they have more events. Positions are
    the same from night to night. Memory of a task: Spark's sort of its share of the pairs, which spills.
    """
    if not with_repeats:
        return interactions.join(earlier.select(_PAIR), on=_PAIR, how="left_anti").select(_PAIR)
    known = earlier.select(*_PAIR, F.col("last_at").alias("known_at"), F.col("event_count").alias("known_count"))
    is_new = F.col("known_count").isNull()
    is_repeated = (F.col("event_count") > F.col("known_count")) | F.coalesce(
        F.col("last_at") > F.col("known_at"), F.lit(False)
    )
    return interactions.join(known, on=_PAIR, how="left").where(is_new | is_repeated).select(_PAIR)


def gather_items(pairs: DataFrame, column: str) -> DataFrame:
    """The items of each user of the pairs, ascending: `user_idx` and the named column. Memory: a user's items."""
    items = F.array_sort(F.collect_list("item_idx"))
    return pairs.groupBy("user_idx").agg(items.alias(column)).select("user_idx", column)


def position_lists(recommendations: DataFrame, relevant: DataFrame, users: DataFrame, items: DataFrame) -> DataFrame:
    """The lists of the users of `relevant` who have one, by position: `user_idx, tier, item_idxs, relevant_idxs`.

    Memory of a task: a user's list, and Spark's sorts, which spill.

    Args:
        recommendations: the published lists.
        relevant: `user_idx, relevant_idxs`, the users with something new; the lists of others are left out first, and
            are never taken apart.
        users: the user index of that run, or of a later one.
        items: the same of the items.
    """
    wanted = relevant.select("user_idx").join(users.select("user_idx", "user_id"), on="user_idx", how="inner")
    lists = recommendations.select("user_id", "tier", "item_ids").join(wanted, on="user_id", how="inner")
    # Outer, because an empty list was shown as well: it has found nothing.
    listed = lists.select("user_idx", "tier", F.posexplode_outer("item_ids").alias("place", "item_id"))
    placed = listed.join(items.select("item_id", "item_idx"), on="item_id", how="left")
    entry = F.when(F.col("item_idx").isNotNull(), F.struct("place", "item_idx"))
    gathered = placed.groupBy("user_idx", "tier").agg(F.array_sort(F.collect_list(entry)).alias("entries"))
    return gathered.join(relevant, on="user_idx", how="inner").select(
        "user_idx", "tier", F.col("entries")["item_idx"].alias("item_idxs"), "relevant_idxs"
    )


def seen_items(earlier: DataFrame, relevant: DataFrame) -> DataFrame:
    """What the users with something new had before, where they had anything: `user_idx, seen_idxs`."""
    theirs = earlier.join(relevant.select("user_idx"), on="user_idx", how="left_semi")
    return gather_items(theirs, "seen_idxs").select("user_idx", "seen_idxs")


def add_popular(lists: DataFrame, seen: DataFrame | None, ranked: MappedArray, k: int) -> DataFrame:
    """Adds to `position_lists` the `popular_idxs`: the first k ranked items that the user has not seen, or of all.

    Memory of a task: a batch of lists and of seen items, 12 bytes x k a list, 4 an item; the ranked are mapped.
    """
    kept = lists.columns  # names alone: a frame cannot travel to the workers

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = ranked.load()
        for batch in batches:
            popular = _first_unseen(items, index_lists(batch.column("seen_idxs")), k)
            yield pa.record_batch([*map(batch.column, kept), popular], names=[*kept, "popular_idxs"])

    nothing = F.array().cast("array<int>")
    with_seen = (
        lists.withColumn("seen_idxs", nothing)
        if seen is None
        else lists.join(seen, on="user_idx", how="left").withColumn("seen_idxs", F.coalesce("seen_idxs", nothing))
    )
    return with_seen.select(*kept, "seen_idxs").mapInArrow(add, _LISTS)


def _first_unseen(ranked: NDArray[np.int32], seen: IndexLists, k: int) -> pa.ListArray:
    """The first k ranked items of each user that are not among the seen ones, ascending."""
    whole = IndexLists(np.array([0, len(ranked)], np.int64), ranked)
    scores, nobody = np.zeros(len(ranked), np.float32), empty_top_k(seen.n_rows, k, -np.inf, np.float32)
    lists, _ = packed_lists(put_first(whole, scores, np.zeros(seen.n_rows, np.int32), seen, nobody))
    return lists_of(lists, pa.array(lists.indices.astype(np.int32)))
