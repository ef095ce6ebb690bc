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
    covered: dict[int, set[int]] = {k: set() for k in ks}
    measured = np.flatnonzero(interactions["test"].any(axis=1))
    for user in measured:
        ranking = [
            item for item in np.lexsort((np.arange(scores.shape[1]), -masked[user])) if masked[user, item] > -np.inf
        ]
        hits = [bool(interactions["test"][user, item]) for item in ranking]
        relevant = int(interactions["test"][user].sum())
        for k in ks:
            covered[k] |= set(ranking[:k])
            for name, value in _metrics_of_list(hits[:k], relevant, k).items():
                sums[f"{name}@{k}"] = sums.get(f"{name}@{k}", 0.0) + value / len(measured)
    return sums | {f"item_coverage@{k}": len(items) / scores.shape[1] for k, items in covered.items()}


def _metrics_of_list(hits: list[bool], relevant: int, k: int) -> dict[str, float]:
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
