"""Asks RecBole for its metrics, in an environment of its own: `python recbole_metrics.py CASE.npz`, JSON to stdout."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recbole.evaluator import Collector, metrics

# RecBole 1.2.1 asks for what NumPy 1.24 has dropped.
for name, kind in (("float", float), ("bool", bool)):
    setattr(np, name, kind)

ON_CPU = SimpleNamespace(device="cpu")
NAMES = {
    "recall": "Recall",
    "precision": "Precision",
    "hit_rate": "Hit",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "map": "MAP",
    "item_coverage": "ItemCoverage",
    "average_popularity": "AveragePopularity",
    "shannon_entropy": "ShannonEntropy",
    "gini_index": "GiniIndex",
    "tail_percentage": "TailPercentage",
}


def gauc(case: Any) -> float:
    """From the places of each user's relevant items among those and the others, the best first, ties in the middle."""
    users, ranks = case["relevant_users"], np.zeros(len(case["positives"]))
    for user in range(len(case["others"])):
        mine = users == user
        scores = np.concatenate([case["positives"][mine], case["others"][user]])
        order = np.argsort(-scores, kind="stable")
        places = np.empty(len(scores))
        places[order] = Collector._average_rank(ON_CPU, torch.from_numpy(scores[order])[None])[0].numpy()
        ranks[mine] = places[: int(mine.sum())]
    sums = np.bincount(users, ranks)[:, None]
    total = case["n_relevant"] + case["others"].shape[1]
    area = metrics.GAUC({"metric_decimal_place": 12}).metric_info(sums, total, case["n_relevant"])
    return float(area)


def main(path: str) -> None:
    case = np.load(path)
    config: dict[str, Any] = {"topk": case["ks"].tolist(), "metric_decimal_place": 12, "tail_ratio": 0.1}
    counts = {item: count for item, count in enumerate(case["trained"].tolist()) if count}
    of_users = np.column_stack([case["hits"].astype(np.int64), case["n_relevant"]])
    found = {
        "rec.topk": torch.from_numpy(of_users),
        "rec.items": torch.from_numpy(case["recommended"].astype(np.int64)),
        "data.num_items": len(case["trained"]),
        "data.count_items": counts,
    }
    values = {}
    for ours, theirs in NAMES.items():
        measured = getattr(metrics, theirs)(config).calculate_metric(found)
        values |= {f"{ours}@{name.partition('@')[2]}": float(value) for name, value in measured.items()}
    values["gauc@0"] = gauc(case)
    sys.stdout.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
