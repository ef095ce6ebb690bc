"""How well linear models of items by items rank: `ease` and `graph_filter`, in closed form, on published splits.

`ml-1m-ncf`: hit rate and NDCG at 10 of one held-out item among 99 that the user has not seen (He et al., "Neural
Collaborative Filtering", WWW 2017). `gowalla`: recall and NDCG at 20 over all places (He et al., "LightGCN", SIGIR
2020). `quest_movielens_1m`: NDCG at 10 of the first fold of Anelli et al. (UMAP 2022).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.datasets import FOLDER, gowalla, is_there, ncf_candidates, ncf_train
from benchmarks.harness import save
from benchmarks.quality import means
from recsys_spark.kernels.csr import CsrRows, IndexLists, rows_of_ones
from recsys_spark.kernels.item_models import ease_weights, graph_filter_weights, score_by_items
from recsys_spark.kernels.topk import TopK
from recsys_spark.models.interactions import TrainingPairs

USERS_AT_ONCE = 512
SEED = 0

Lists = Iterator[tuple[slice, NDArray[np.float32]]]
"""Scores of all items for some users at a time."""


@dataclass(frozen=True)
class Run:
    """A data set, a model, its settings, and how its lists are measured."""

    dataset: str
    model: str
    settings: dict[str, float]
    pairs: Callable[[], TrainingPairs]
    measure: Callable[[Lists, TrainingPairs], dict[str, float]]


def quest(part: str = "train") -> TrainingPairs:
    """The first fold; users and items in the order of their ids in the training part, others left out."""
    folder = FOLDER / "quest_movielens_1m"
    train, wanted = (pq.read_table(folder / f"fold0.{name}.parquet") for name in ("train", part))
    sides = []
    for name in ("user", "item"):
        ids, found = np.unique(train.column(name).to_numpy()), wanted.column(name).to_numpy()
        places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        sides.append((places.astype(np.int32), ids[places] == found, len(ids)))
    (users, is_user, n_users), (items, is_item, n_items) = sides
    order = np.lexsort((items, users))
    order = order[(is_user & is_item)[order]]
    return TrainingPairs(users[order], items[order], np.ones(len(order), np.float32), n_users, n_items)


def over_all(test: Callable[[], TrainingPairs], k: int, names: tuple[str, ...]) -> Callable[..., dict[str, float]]:
    """Ranked over all items that a user has not seen."""

    def measure(lists: Lists, train: TrainingPairs) -> dict[str, float]:
        best, wanted = np.zeros((train.n_users, k), np.int64), test()
        seen = IndexLists(train.indptr(), train.item_idx)
        for users, scores in lists:
            own = seen.slice_rows(users.start, users.stop)
            scores[np.repeat(np.arange(own.n_rows), np.diff(own.indptr)), own.indices] = -np.inf
            best[users] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return means(TopK(best, np.zeros(best.shape)), IndexLists(wanted.indptr(), wanted.item_idx), k, names)

    return measure


def among_given(lists: Lists, train: TrainingPairs) -> dict[str, float]:
    """The first of a hundred given items."""
    given = ncf_candidates()
    best = np.zeros((len(given), 10), np.int64)
    for users, scores in lists:
        chosen = np.take_along_axis(scores, given[users], axis=1)
        best[users] = np.argsort(-chosen, axis=1, kind="stable")[:, :10]
    first = IndexLists(np.arange(len(given) + 1), np.zeros(len(given), np.int64))
    return means(TopK(best, np.zeros(best.shape)), first, 10, ("hit_rate", "ndcg"))


def test_of_quest() -> TrainingPairs:
    return quest("test")


def test_of_gowalla() -> TrainingPairs:
    return gowalla("test")


OF_QUEST = over_all(test_of_quest, 10, ("ndcg",))
SMALL = [
    Run("ml-1m-ncf", "ease", {"l2": 1320.0}, ncf_train, among_given),
    Run("quest_movielens_1m/0", "ease", {"l2": 238.56}, quest, OF_QUEST),
    Run("quest_movielens_1m/0", "graph_filter", {"dims": 128, "low_pass": 0.3}, quest, OF_QUEST),
]
FULL = [
    *SMALL,
    Run(
        "gowalla",
        "graph_filter",
        {"dims": 256, "low_pass": 0.2},
        gowalla,
        over_all(test_of_gowalla, 20, ("recall", "ndcg")),
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
        "metrics": case.measure(lists_of(rows, weights), pairs),
        "train_s": seconds,
        "settings": case.settings,
    }
    print(json.dumps(save("quality", line)), flush=True)


def lists_of(rows: CsrRows, weights: NDArray[np.float32]) -> Lists:
    for start in range(0, rows.n_rows, USERS_AT_ONCE):
        users = slice(start, min(start + USERS_AT_ONCE, rows.n_rows))
        yield users, score_by_items(rows.slice_rows(users.start, users.stop), weights)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: Gowalla too, 14 GB")
    parser.add_argument("--dataset", default="", help="run those whose name contains this")
    options = parser.parse_args()
    for each in SMALL if options.size == "small" else FULL:
        if options.dataset in each.dataset and is_there(each.dataset.split("/")[0].split("-ncf")[0]):
            run(each)
