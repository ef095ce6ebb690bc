"""Independent computations that nights are compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.night.catalogue import Workspace

SPLITS = ("train", "validation", "test")


def brute_force_metrics(
    scores: NDArray[Any], interactions: dict[str, NDArray[np.bool_]], ks: tuple[int, ...]
) -> dict[str, float]:
    """Metrics of full rankings without train and validation items; -inf is never recommended."""
    masked = np.where(interactions["train"] | interactions["validation"], -np.inf, scores)
    sums: dict[str, float] = {}
    listed: dict[int, list[int]] = {k: [] for k in ks}
    measured = np.flatnonzero(interactions["test"].any(axis=1))
    for user in measured:
        ranking = [
            item for item in np.lexsort((np.arange(scores.shape[1]), -masked[user])) if masked[user, item] > -np.inf
        ]
        hits = [bool(interactions["test"][user, item]) for item in ranking]
        relevant = int(interactions["test"][user].sum())
        for k in ks:
            listed[k] += ranking[:k]
            for name, value in metrics_of_list(hits[:k], relevant, k).items():
                sums[f"{name}@{k}"] = sums.get(f"{name}@{k}", 0.0) + value / len(measured)
    for k, items in listed.items():
        sums |= {f"{name}@{k}": value for name, value in spread(items, interactions["train"]).items()}
    return sums


def spread(listed: list[int], train: NDArray[np.bool_]) -> dict[str, float]:
    """Of the items of all lists, one after the other; the Gini index by the differences of all pairs."""
    n_items, trained, n_users = train.shape[1], train.sum(axis=0).tolist(), int(train.any(axis=1).sum())
    counts = [listed.count(item) for item in range(n_items)]
    coverage = {"item_coverage": len(set(listed)) / n_items}
    if not listed:
        return coverage
    known = sorted((count, item) for item, count in enumerate(trained) if count)
    tail = {item for _, item in known[: max(len(known) // 10, 1)]}
    shares = [count / len(listed) for count in counts if count]
    return coverage | {
        "gini_index": sum(abs(one - other) for one in counts for other in counts) / (2 * n_items * len(listed)),
        "shannon_entropy": -sum(share * math.log(share) for share in shares) / len(shares),
        "average_popularity": sum(trained[item] for item in listed) / len(listed),
        "tail_percentage": sum(item in tail for item in listed) / len(listed),
        "novelty": sum(-math.log2(max(trained[item], 1) / n_users) for item in listed) / len(listed),
    }


def metrics_of_list(hits: list[bool], relevant: int, k: int) -> dict[str, float]:
    ranks = [rank for rank, is_hit in enumerate(hits, start=1) if is_hit]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(relevant, k) + 1))
    return {
        "recall": len(ranks) / relevant,
        "precision": len(ranks) / k,
        "hit_rate": float(bool(ranks)),
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "map": sum((place + 1) / rank for place, rank in enumerate(ranks)) / min(relevant, k),
    }


def metrics_of_run(workspace: Workspace, model: str, run_id: str | None = None) -> dict[str, float]:
    rows = workspace.rows("metrics", run_id)
    return {f"{row['metric']}@{row['k']}": row["value"] for row in rows if row["model"] == model}


def splits_as_matrices(rows: list[dict[str, Any]], shape: tuple[int, ...]) -> dict[str, NDArray[np.bool_]]:
    matrices = {split: np.zeros(shape, bool) for split in SPLITS}
    for row in rows:
        matrices[row["split"]][row["user_idx"], row["item_idx"]] = True
    return matrices
