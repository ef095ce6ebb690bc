"""Ranking metrics of top-k lists, per query, as RecBole 1.2.1 defines them (`recbole.evaluator.metrics`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.hits import mark_hits


def hits_matrix(recommended: NDArray[Any], relevant: IndexLists) -> NDArray[np.bool_]:
    """Tell which recommended items are relevant, (q, k), best first.

    `recommended` (q, k) are item positions padded with -1; `relevant` lists each query's items in any order.
    Raises ValueError for numbers of queries that do not match, or an item that a query has twice in either.
    """
    n_queries = recommended.shape[0]
    if relevant.n_rows != n_queries:
        raise ValueError(f"{n_queries} recommended lists but {relevant.n_rows} relevant ones")
    return mark_hits(recommended, relevant)


def ranking_metrics(
    hits: NDArray[np.bool_], n_relevant: NDArray[Any], ks: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Compute recall, precision, hit_rate, ndcg, mrr and map at each k; names are like "recall@10".

    `hits` (q, width) are best first, `n_relevant` (q,) counts each query's relevant items; every metric is
    float64 (q,). With h_j the hit at rank j: precision divides by k even where a list is shorter; ndcg has
    binary gains and the ideal of min(n_relevant, k) hits; mrr is the reciprocal rank of the first hit;
    map sums h_j * precision@j and divides by min(n_relevant, k).
    Raises ValueError for a query without relevant items, which no metric is defined for, or with fewer than
    it has hits, and for a k outside 1 to the width.
    """
    _require_countable(hits, n_relevant, ks)
    ranks = np.arange(1, hits.shape[1] + 1)
    discounts = 1.0 / np.log2(ranks + 1)
    hit_counts = np.cumsum(hits, axis=1)
    sums = {
        "dcg": np.cumsum(hits * discounts, axis=1),
        "precision": np.cumsum(hits * hit_counts / ranks, axis=1),
        "reciprocal_rank": np.cumsum(hits * (hit_counts == 1) / ranks, axis=1),
    }
    ideal_dcg = np.cumsum(discounts)
    metrics: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        n_reachable = np.minimum(n_relevant, k)
        metrics[f"recall@{k}"] = hit_counts[:, k - 1] / n_relevant
        metrics[f"precision@{k}"] = hit_counts[:, k - 1] / k
        metrics[f"hit_rate@{k}"] = (hit_counts[:, k - 1] > 0).astype(np.float64)
        metrics[f"ndcg@{k}"] = sums["dcg"][:, k - 1] / ideal_dcg[n_reachable - 1]
        metrics[f"mrr@{k}"] = sums["reciprocal_rank"][:, k - 1]
        metrics[f"map@{k}"] = sums["precision"][:, k - 1] / n_reachable
    return metrics


def _require_countable(hits: NDArray[np.bool_], n_relevant: NDArray[Any], ks: Sequence[int]) -> None:
    if n_relevant.shape != (hits.shape[0],):
        raise ValueError(f"n_relevant must be ({hits.shape[0]},), got {n_relevant.shape}")
    is_short = (n_relevant < 1) | (n_relevant < hits.sum(axis=1))
    if is_short.any():
        query = int(np.argmax(is_short))
        raise ValueError(
            f"query row {query} has {n_relevant[query]} relevant items and {hits[query].sum()} hits;"
            " it needs at least 1, and as many as hits"
        )
    for k in ks:
        if not 1 <= k <= hits.shape[1]:
            raise ValueError(f"k must be 1 to {hits.shape[1]}, the width of the lists, got {k}")
