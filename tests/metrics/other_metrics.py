"""Asks RecTools and ranx for their metrics, in an environment of its own: `python other_metrics.py CASE.npz`.

JSON to stdout: by library, metric and k the mean over users. Two definitions differ from RecBole's, which are ours:
RecTools divides NDCG by what k hits would have unless told otherwise, and both divide average precision by all relevant
items even where a list is too short for them, so that it comes here as `map_of_all`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
from ranx import Qrels, Run, evaluate
from rectools import metrics
from rectools.metrics.distances import PairwiseDistanceCalculator

RANX = {"recall": "recall", "precision": "precision", "hit_rate": "hit_rate", "ndcg": "ndcg", "mrr": "mrr",
        "map_of_all": "map"}  # fmt: skip
RECTOOLS = {
    "recall": metrics.Recall,
    "precision": metrics.Precision,
    "hit_rate": metrics.HitRate,
    "mrr": metrics.MRR,
    "map_of_all": metrics.MAP,
    "ndcg": lambda k: metrics.NDCG(k, divide_by_achievable=True),
}


class Cosines(PairwiseDistanceCalculator):
    """1 - cosine of rows of length 1."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def _get_distances_for_item_pairs(self, items_0: Any, items_1: Any) -> np.ndarray:
        rows = self.vectors[np.asarray(items_0)], self.vectors[np.asarray(items_1)]
        return np.asarray(1 - (rows[0] * rows[1]).sum(axis=1))


def of_rectools(case: Any) -> dict[str, float]:
    n_users, width = case["recommended"].shape
    lists = pd.DataFrame(
        {"user_id": np.repeat(np.arange(n_users), width), "item_id": case["recommended"].ravel(),
         "rank": np.tile(np.arange(1, width + 1), n_users)}
    )  # fmt: skip
    relevant = pd.DataFrame({"user_id": case["relevant_users"], "item_id": case["relevant_items"]})
    trained = pd.DataFrame({"user_id": case["trained_users"], "item_id": case["trained_items"]})
    values = {}
    for k in case["ks"].tolist():
        values |= {f"{name}@{k}": build(k=k).calc(lists, relevant) for name, build in RECTOOLS.items()}
        values[f"novelty@{k}"] = metrics.MeanInvUserFreq(k=k).calc(lists, trained)
        if k > 1:  # one item is in no pair
            diversity = metrics.IntraListDiversity(k=k, distance_calculator=Cosines(case["vectors"]))
            values[f"intra_list_diversity@{k}"] = diversity.calc(lists)
    return {name: float(value) for name, value in values.items()}


def of_ranx(case: Any) -> dict[str, float]:
    recommended, relevant = case["recommended"], {}
    for user, item in zip(case["relevant_users"].tolist(), case["relevant_items"].tolist(), strict=True):
        relevant.setdefault(f"u{user}", {})[f"i{item}"] = 1
    run = Run(
        {f"u{user}": {f"i{item}": float(-place) for place, item in enumerate(items)}
         for user, items in enumerate(recommended.tolist())}
    )  # fmt: skip
    names = {f"{theirs}@{k}": f"{ours}@{k}" for ours, theirs in RANX.items() for k in case["ks"].tolist()}
    found = evaluate(Qrels(relevant), run, list(names))
    return {names[name]: float(value) for name, value in found.items()}


def main(path: str) -> None:
    case = np.load(path)
    sys.stdout.write(json.dumps({"rectools": of_rectools(case), "ranx": of_ranx(case)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
