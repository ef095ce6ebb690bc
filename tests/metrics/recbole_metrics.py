"""Asks RecBole for its metrics, in an environment of its own: `python recbole_metrics.py CASE.npz`, JSON to stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from recbole.evaluator import metrics

# RecBole 1.2.1 asks for what NumPy 1.24 has dropped.
setattr(np, "float", float)  # noqa: B010

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
    sys.stdout.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
