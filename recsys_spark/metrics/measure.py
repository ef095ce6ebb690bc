"""Measures lists on Spark: one pass over them, sums that do not depend on how they are partitioned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.metrics.diversity import intra_list_diversity
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.metrics.spread import TrainingCounts, spread_metrics

if TYPE_CHECKING:
    from recsys_spark.blockwise.files import MappedArray

_UNIT = 1e12  # values are added up as whole multiples of 1 / _UNIT
_PARTS = "metric string, k int, item_idx int, total bigint, users bigint"
_LISTED = "listed"  # how often an item is listed
_MOST_SPARSE = 4  # times as many items as places of the lists: beyond that, sorting takes less

Metric = dict[str, Any]
"""A row of the table `metrics`."""


def count_training(interactions: DataFrame, n_items: int) -> TrainingCounts:
    """What a fit without the hold-out has learned from, of the rows of `interactions`. Memory: 8 bytes an item."""
    pairs = interactions.where(F.col("split") == "train")
    found, counts = pairs.groupBy("item_idx").count().toArrow(), np.zeros(n_items, np.int64)
    counts[found.column("item_idx").to_numpy()] = found.column("count").to_numpy()
    return TrainingCounts(counts, pairs.select("user_idx").distinct().count())


def measure(
    lists: DataFrame, model: str, ks: Sequence[int], trained: TrainingCounts, vectors: MappedArray | None = None
) -> list[Metric]:
    """Rows of the table `metrics` for lists `user_idx, item_idxs, relevant_idxs` of users with relevant items.

    Ranking metrics are means over the users, those of `metrics.spread` of all lists together. With `vectors` of the
    items, (items, d), of length 1 or 0, there is the mean `intra_list_diversity@k` of the lists that have one. Memory
    of the driver: 40 bytes a listed item and k.
    """
    longest = max(ks)

    def add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _partial_sums(batch, list(ks), longest, vectors)
                yield _partial_counts(batch, list(ks), longest)

    parts = lists.select("item_idxs", "relevant_idxs").mapInArrow(add_up, _PARTS)
    sums = parts.groupBy("metric", "k", "item_idx").agg(
        F.sum(F.col("total").cast("decimal(38,0)")).cast("double").alias("total"), F.sum("users").alias("users")
    )
    return _rows(sums.toArrow(), model, ks, trained)


def _rows(sums: pa.Table, model: str, ks: Sequence[int], trained: TrainingCounts) -> list[Metric]:
    is_listed = pc.equal(sums.column("metric"), _LISTED)
    means, listed = sums.filter(pc.invert(is_listed)).to_pylist(), sums.filter(is_listed)
    values = {(row["metric"], row["k"]): (row["total"] / _UNIT / row["users"], row["users"]) for row in means}
    users = max((row["users"] for row in means), default=0)
    places, items, totals = (listed.column(name).to_numpy() for name in ("k", "item_idx", "total"))
    for k in ks:
        counts = np.zeros(len(trained.items), np.int64)
        counts[items[places == k]] = totals[places == k]
        values |= {(name, k): (value, users) for name, value in spread_metrics(counts, trained).items()}
    return [
        {"model": model, "metric": name, "k": k, "value": value, "users": measured}
        for (name, k), (value, measured) in sorted(values.items())
    ]


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
            "metric": pa.array([name for name, _ in measured], pa.string()),
            "k": pa.array([int(k) for _, k in measured], pa.int32()),
            "item_idx": pa.nulls(len(measured), pa.int32()),
            "total": pa.array(totals, pa.int64()),
            "users": pa.array([value.size for value in measured.values()], pa.int64()),
        }
    )


def _partial_counts(batch: pa.RecordBatch, ks: list[int], longest: int) -> pa.RecordBatch:
    """How often each item is among the first k of the lists."""
    recommended = _padded(_index_lists(batch.column("item_idxs")), longest)
    found = [_counts_of(recommended[:, :k]) for k in ks]
    items, counts = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return pa.record_batch(
        {
            "metric": pa.array([_LISTED] * len(items), pa.string()),
            "k": pa.array(np.repeat(ks, [len(some) for some, _ in found]), pa.int32()),
            "item_idx": pa.array(items, pa.int32()),
            "total": pa.array(counts, pa.int64()),
            "users": pa.array(np.zeros(len(items), np.int64)),
        }
    )


def _counts_of(items: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different items, ascending, and how often each occurs; -1 is padding."""
    flat = items[items >= 0]
    if int(flat.max(initial=0)) >= _MOST_SPARSE * max(flat.size, 1):
        return np.unique(flat, return_counts=True)
    counts = np.bincount(flat)
    known = np.flatnonzero(counts)
    return known, counts[known]


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
