"""Measures lists on Spark: one pass over them, sums that do not depend on how they are partitioned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.metrics.diversity import intra_list_diversity
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics

if TYPE_CHECKING:
    from recsys_spark.blockwise.files import MappedArray

_UNIT = 1e12  # values are added up as whole multiples of 1 / _UNIT
_PARTS = "metric string, k int, total bigint, users bigint"


def measure(
    lists: DataFrame, model: str, ks: Sequence[int], n_items: int, vectors: MappedArray | None = None
) -> DataFrame:
    """The table `metrics` for lists `user_idx, item_idxs, relevant_idxs` of users with relevant items.

    Ranking metrics are means over the users; `item_coverage@k` is the share of the items in any list. With `vectors`
    of the items, (items, d), of length 1 or 0, there is the mean `intra_list_diversity@k` of the lists that have one.
    """
    longest = max(ks)

    def add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _partial_sums(batch, list(ks), longest, vectors)

    parts = lists.select("item_idxs", "relevant_idxs").mapInArrow(add_up, _PARTS)
    means = parts.groupBy("metric", "k").agg(
        (F.sum(F.col("total").cast("decimal(38,0)")).cast("double") / F.lit(_UNIT) / F.sum("users")).alias("value"),
        F.sum("users").alias("users"),
    )
    named = means.unionByName(_coverage(lists, ks, n_items))
    return named.select(F.lit(model).alias("model"), "metric", "k", "value", "users")


def _partial_sums(batch: pa.RecordBatch, ks: list[int], longest: int, vectors: MappedArray | None) -> pa.RecordBatch:
    lists, relevant = (_index_lists(batch.column(name)) for name in ("item_idxs", "relevant_idxs"))
    recommended = _padded(lists, longest)
    values = ranking_metrics(hits_matrix(recommended, relevant), np.diff(relevant.indptr), ks)
    if vectors is not None:
        values |= intra_list_diversity(recommended, vectors.load(), ks)
    defined = {name: value[~np.isnan(value)] for name, value in values.items()}
    measured = {tuple(name.split("@")): value for name, value in defined.items() if value.size}
    totals = [int(np.rint(value * _UNIT).astype(np.int64).sum()) for value in measured.values()]
    return pa.record_batch(
        {
            "metric": [name for name, _ in measured],
            "k": pa.array([int(k) for _, k in measured], pa.int32()),
            "total": pa.array(totals, pa.int64()),
            "users": pa.array([value.size for value in measured.values()], pa.int64()),
        }
    )


def _coverage(lists: DataFrame, ks: Sequence[int], n_items: int) -> DataFrame:
    best_places = (
        lists.select(F.posexplode("item_idxs").alias("place", "item_idx"))
        .groupBy("item_idx")
        .agg(F.min("place").alias("place"))
    )
    covered = best_places.agg(*[F.count_if(F.col("place") < k).alias(str(k)) for k in ks])
    pairs = F.explode(F.array(*[F.struct(F.lit(k).alias("k"), F.col(f"`{k}`").alias("items")) for k in ks]))
    users = lists.agg(F.count("*").alias("users"))
    return (
        covered.select(pairs.alias("covered"))
        .crossJoin(F.broadcast(users))  # one row
        .select(
            F.lit("item_coverage").alias("metric"),
            F.col("covered.k").alias("k"),
            (F.col("covered.items") / F.lit(max(n_items, 1))).alias("value"),
            "users",
        )
    )


def _index_lists(column: pa.ListArray) -> IndexLists:
    indptr = column.offsets.to_numpy().astype(np.int64)
    return IndexLists(indptr - indptr[0], column.flatten().to_numpy())


def _padded(lists: IndexLists, width: int) -> np.ndarray:
    """Lists as rows of one width, -1 padded, longer ones cut."""
    padded = np.full((lists.n_rows, width), -1, np.int64)
    lengths = np.diff(lists.indptr)
    places = np.arange(lists.indices.size) - np.repeat(lists.indptr[:-1], lengths)
    rows = np.repeat(np.arange(lists.n_rows), lengths)
    fits = places < width
    padded[rows[fits], places[fits]] = lists.indices[fits]
    return padded
