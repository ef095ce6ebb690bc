"""Measures lists on Spark: one pass over them, sums that do not depend on how they are partitioned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.metrics.confidence import GROUPS, GroupSums, mean_interval, paired_difference
from recsys_spark.metrics.diversity import intra_list_diversity
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.metrics.spread import TrainingCounts, spread_metrics

if TYPE_CHECKING:
    from recsys_spark.blockwise.files import MappedArray

_UNIT = 1e12  # values are added up as whole multiples of 1 / _UNIT
_PARTS = "metric string, k int, place int, total bigint, users bigint"
_LISTED = "listed"  # how often an item is listed; `place` is its position, and a group of users of other metrics
_MOST_SPARSE = 16  # times as many items as places of the lists: beyond that, counting them one by one takes less

Metric = dict[str, Any]
"""A row of the table `metrics`."""

MetricName = tuple[str, int]
"""Such as ("ndcg", 10)."""


class Measured(NamedTuple):
    """Rows of the table `metrics`, and what those of means over users were made of."""

    rows: list[Metric]
    sums: dict[MetricName, GroupSums]


def count_training(interactions: DataFrame, n_items: int) -> TrainingCounts:
    """What a fit without the hold-out has learned from, of the rows of `interactions`. Memory: 8 bytes an item."""
    pairs = interactions.where(F.col("split") == "train")
    found, counts = pairs.groupBy("item_idx").count().toArrow(), np.zeros(n_items, np.int64)
    counts[found.column("item_idx").to_numpy()] = found.column("count").to_numpy()
    return TrainingCounts(counts, pairs.select("user_idx").distinct().count())


def measure(
    lists: DataFrame, model: str, ks: Sequence[int], trained: TrainingCounts, vectors: MappedArray | None = None
) -> Measured:
    """Metrics of lists `user_idx, item_idxs, relevant_idxs` of users with relevant items.

    Ranking metrics are means over the users, those of `metrics.spread` of all lists together. With `vectors` of the
    items, (items, d), of length 1 or 0, there is the mean `intra_list_diversity@k` of the lists that have one. Memory
    of the driver: 40 bytes a listed item and k, and 2 MB of sums; of a task 4 bytes x items x ks and 16 KB a metric
    and k beside its lists.
    """
    longest, n_items = max(ks), len(trained.items)

    def add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums, listed = _Sums(), np.zeros((len(ks), n_items), np.int32)
        for batch in batches:
            if batch.num_rows:
                lists, relevant = (index_lists(batch.column(name)) for name in ("item_idxs", "relevant_idxs"))
                recommended = _padded(lists, longest)
                sums.add(batch.column("user_idx").to_numpy(), _values(recommended, relevant, list(ks), vectors))
                for counts, k in zip(listed, ks, strict=True):
                    _count(recommended[:, :k], counts)
        yield sums.batch()
        yield _listed_parts(listed, ks)

    parts = lists.select("user_idx", "item_idxs", "relevant_idxs").mapInArrow(add_up, _PARTS)
    added = _added(parts)
    is_listed = pc.equal(added.column("metric"), _LISTED)
    sums = _group_sums(added.filter(pc.invert(is_listed)))
    users = max((int(each.users.sum()) for each in sums.values()), default=0)
    rows = [*_mean_rows(sums, model), *_spread_rows(added.filter(is_listed), model, ks, trained, users)]
    return Measured(sorted(rows, key=lambda row: (row["metric"], row["k"])), sums)


def add_up_pairs(predicted: DataFrame, metrics: Sequence[str]) -> dict[MetricName, GroupSums]:
    """Sums of metrics over pairs, from `user_idx, pairs` and a column of sums for each metric, null where it is none.

    They are of no lists, so that k is 0, and the "users" of the sums are pairs.
    """

    def add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = _Sums()
        for batch in batches:
            found = {(name, 0): batch.column(name).to_numpy(zero_copy_only=False) for name in metrics}
            sums.add(batch.column("user_idx").to_numpy(), found, batch.column("pairs").to_numpy())
        yield sums.batch()

    return _group_sums(_added(predicted.select("user_idx", "pairs", *metrics).mapInArrow(add_up, _PARTS)))


def sum_rows(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Rows of the table `metric_sums`, of each model by name."""
    return [
        {
            "model": model,
            "metric": metric,
            "k": k,
            "group": group,
            "total": float(totals[group]),
            "users": int(counts[group]),
        }
        for model, each in measured.items()
        for (metric, k), (totals, counts) in each.sums.items()
        for group in np.flatnonzero(counts).tolist()
    ]


def read_sums(rows: Sequence[Mapping[str, Any]]) -> GroupSums:
    """The sums that rows of `metric_sums` of one model, metric and k hold."""
    totals, users = np.zeros(GROUPS), np.zeros(GROUPS, np.int64)
    for row in rows:
        totals[row["group"]], users[row["group"]] = row["total"], row["users"]
    return GroupSums(totals, users)


def gains_over(measured: Mapping[str, Measured], baseline: str) -> list[dict[str, Any]]:
    """How far each model is ahead of one of them in each mean over users, by a paired test."""
    return [
        {"model": model, "other": baseline, "metric": name[0], "k": name[1]}
        | paired_difference(sums, measured[baseline].sums[name])._asdict()
        for model, each in measured.items()
        if model != baseline
        for name, sums in each.sums.items()
        if name in measured[baseline].sums and (sums.users == measured[baseline].sums[name].users).all()
    ]


class _Sums:
    """Sums of metrics by group of users, of one task."""

    def __init__(self) -> None:
        self._totals: dict[MetricName, NDArray[np.int64]] = {}
        self._users: dict[MetricName, NDArray[np.int64]] = {}

    def add(
        self,
        users: NDArray[np.int32],
        values: Mapping[MetricName, NDArray[np.float64]],
        pairs: NDArray[np.int64] | None = None,
    ) -> None:
        """Values of users, nan where there is none; with `pairs` each is the sum over as many."""
        groups, pairs = users % GROUPS, np.ones(len(users), np.int64) if pairs is None else pairs
        for name, value in values.items():
            is_defined = ~np.isnan(value)
            units = np.rint(value[is_defined] * _UNIT).astype(np.int64)
            # Whole numbers, for `bincount` adds its weights as floats.
            np.add.at(self._totals.setdefault(name, np.zeros(GROUPS, np.int64)), groups[is_defined], units)
            np.add.at(self._users.setdefault(name, np.zeros(GROUPS, np.int64)), groups[is_defined], pairs[is_defined])

    def batch(self) -> pa.RecordBatch:
        batches = []
        for (metric, k), users in self._users.items():
            groups = np.flatnonzero(users)
            batches.append(_parts(metric, [k], [groups], [self._totals[metric, k][groups]], [users[groups]]))
        return pa.Table.from_batches(batches, _ARROW_PARTS).combine_chunks().to_batches()[0] if batches else _NO_PARTS


def _parts(
    metric: str, ks: Sequence[int], places: Sequence[Any], totals: Sequence[Any], users: Sequence[Any]
) -> pa.RecordBatch:
    """Rows of `_PARTS` of one metric, some for each k."""
    lengths = [len(some) for some in places]
    columns = [np.concatenate(arrays) for arrays in (places, totals, users)]
    return pa.record_batch(
        [
            pa.array([metric] * sum(lengths), pa.string()),
            pa.array(np.repeat(ks, lengths), pa.int32()),
            *(
                pa.array(column, kind)
                for column, kind in zip(columns, (pa.int32(), pa.int64(), pa.int64()), strict=True)
            ),
        ],
        schema=_ARROW_PARTS,
    )


_ARROW_PARTS = pa.schema(
    [("metric", pa.string()), ("k", pa.int32()), ("place", pa.int32()), ("total", pa.int64()), ("users", pa.int64())]
)
_NO_PARTS = pa.record_batch([[]] * 5, schema=_ARROW_PARTS)


def _added(parts: DataFrame) -> pa.Table:
    total = F.sum(F.col("total").cast("decimal(38,0)")).cast("double").alias("total")
    return parts.groupBy("metric", "k", "place").agg(total, F.sum("users").alias("users")).toArrow()


def _group_sums(added: pa.Table) -> dict[MetricName, GroupSums]:
    sums: dict[MetricName, GroupSums] = {}
    for metric, k in sorted({(row["metric"], row["k"]) for row in added.select(["metric", "k"]).to_pylist()}):
        found = added.filter(pc.and_(pc.equal(added.column("metric"), metric), pc.equal(added.column("k"), k)))
        totals, users = np.zeros(GROUPS), np.zeros(GROUPS, np.int64)
        groups = found.column("place").to_numpy()
        totals[groups], users[groups] = found.column("total").to_numpy() / _UNIT, found.column("users").to_numpy()
        sums[metric, k] = GroupSums(totals, users)
    return sums


def _mean_rows(sums: Mapping[MetricName, GroupSums], model: str) -> list[Metric]:
    return [
        metric_row(model, name, each.mean, *mean_interval(each), users=int(each.users.sum()))
        for name, each in sums.items()
    ]


def metric_row(
    model: str, name: MetricName, value: float, low: float | None = None, high: float | None = None, *, users: int
) -> Metric:
    """A row of the table `metrics`."""
    metric, k = name
    return {"model": model, "metric": metric, "k": k, "value": value, "low": low, "high": high, "users": users}


def _spread_rows(
    listed: pa.Table, model: str, ks: Sequence[int], trained: TrainingCounts, users: int
) -> Iterator[Metric]:
    places, items, totals = (listed.column(name).to_numpy() for name in ("k", "place", "total"))
    for k in ks:
        counts = np.zeros(len(trained.items), np.int64)
        counts[items[places == k]] = totals[places == k]
        for metric, value in spread_metrics(counts, trained).items():
            yield metric_row(model, (metric, k), value, users=users)


def _values(
    recommended: NDArray[np.int64], relevant: IndexLists, ks: list[int], vectors: MappedArray | None
) -> dict[MetricName, NDArray[np.float64]]:
    values = ranking_metrics(hits_matrix(recommended, relevant), np.diff(relevant.indptr), ks)
    if vectors is not None:
        values |= intra_list_diversity(recommended, vectors.load(), ks)
    names = {name: name.split("@") for name in values}
    return {(metric, int(k)): values[name] for name, (metric, k) in names.items()}


def _count(items: NDArray[np.int64], counts: NDArray[np.int32]) -> None:
    """Add how often each item is among those; -1 is padding."""
    flat = items[items >= 0]
    if flat.size >= counts.size / _MOST_SPARSE:
        counts += np.bincount(flat, minlength=counts.size).astype(np.int32)
    else:
        np.add.at(counts, flat, np.int32(1))


def _listed_parts(listed: NDArray[np.int32], ks: Sequence[int]) -> pa.RecordBatch:
    """How often each item is among the first k of the lists of a task, `listed` (ks, items)."""
    items = [np.flatnonzero(counts) for counts in listed]
    totals = [counts[some] for counts, some in zip(listed, items, strict=True)]
    return _parts(_LISTED, ks, items, totals, [np.zeros(len(some), np.int64) for some in items])


def index_lists(column: pa.ListArray) -> IndexLists:
    """Arrow lists without nulls, of positions."""
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
