"""How well linear models of items by items rank: `ease` and `graph_filter`, in closed form, on published splits.

`ml-1m-ncf`: hit rate and NDCG at 10 of one held-out item among 99 that the user has not seen (He et al., "Neural
Collaborative Filtering", WWW 2017). `gowalla`: recall and NDCG at 20 over all places (He et al., "LightGCN", SIGIR
2020). `quest_movielens_1m`: NDCG at 10 of the first fold of Anelli et al. (UMAP 2022).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import gowalla, is_there, ncf_candidates, ncf_train, quest
from benchmarks.harness import chosen, save
from benchmarks.ranking import Measure, Scores, among_given, lists_of, means_of, over_all
from recsys_spark.kernels.csr import CsrRows, IndexLists, rows_of_ones
from recsys_spark.kernels.item_models import ease_weights, graph_filter_weights, score_by_items
from recsys_spark.models.interactions import TrainingPairs

SEED = 0


@dataclass(frozen=True)
class Run:
    """A data set, a model, its settings, and how its lists are measured."""

    dataset: str
    model: str
    settings: dict[str, float]
    pairs: Callable[[], TrainingPairs]
    measure: Measure


def test_of_quest() -> TrainingPairs:
    return quest(0, "test")


def train_of_quest() -> TrainingPairs:
    return quest(0)


def test_of_gowalla() -> TrainingPairs:
    return gowalla("test")


OF_QUEST = over_all(test_of_quest, ["ndcg@10"])
OF_NCF = among_given(ncf_candidates, ["hit_rate@10", "ndcg@10"])
SMALL = [
    Run("ml-1m-ncf", "ease", {"l2": 1320.0}, ncf_train, OF_NCF),
    Run("quest_movielens_1m/0", "ease", {"l2": 238.56}, train_of_quest, OF_QUEST),
    Run("quest_movielens_1m/0", "graph_filter", {"dims": 128, "low_pass": 0.3}, train_of_quest, OF_QUEST),
]
FULL = [
    *SMALL,
    Run(
        "gowalla",
        "graph_filter",
        {"dims": 256, "low_pass": 0.2},
        gowalla,
        over_all(test_of_gowalla, ["recall@20", "ndcg@20"]),
    ),
]


def run(case: Run) -> None:
    pairs = case.pairs()
    rows = rows_of_ones(IndexLists(pairs.indptr(), pairs.item_idx), pairs.n_items)
    started = time.perf_counter()
    if case.model == "ease":
        weights = ease_weights(rows, case.settings["l2"])
    else:
        weights = graph_filter_weights(rows, int(case.settings["dims"]), case.settings["low_pass"], SEED)
    seconds = round(time.perf_counter() - started, 1)
    line = {
        "benchmark": "quality",
        "dataset": case.dataset,
        "model": case.model,
        "metrics": means_of(case.measure(lists_of(by_items(rows, weights), pairs.n_users), pairs)),
        "train_s": seconds,
        "settings": case.settings,
    }
    print(json.dumps(save("quality", line)), flush=True)


def by_items(rows: CsrRows, weights: NDArray[np.float32]) -> Scores:
    """Scores by the weights of what users have."""
    return lambda users: score_by_items(rows.slice_rows(users.start, users.stop), weights)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: Gowalla too, 14 GB")
    parser.add_argument("--dataset", default="", help="run the one of this name, or else those whose name contains it")
    options = parser.parse_args()
    runs = SMALL if options.size == "small" else FULL
    datasets = chosen(parser, "--dataset", options.dataset, {each.dataset: each.dataset for each in runs})
    for each in runs:
        if each.dataset in datasets and is_there(each.dataset.split("/")[0].split("-ncf")[0]):
            run(each)
