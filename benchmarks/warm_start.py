"""How much sooner a training that starts from the night before is as good as one from scratch ever gets.

MovieLens-latest-small and MovieLens-100K, each user's ratings by time: the night before knew the first 87 % and was
validated on the next 3 %, tonight has 90 %, and the last 10 % validate. So small sets give each seed another result, so
the goal is the median of what trainings from scratch reach at their best; none when the median of the warm ones does
not get there. Times are medians, of training and validation together, from the start of the first epoch.
"""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pandas as pd

from benchmarks.datasets import CACHE, FOLDER, is_there
from benchmarks.harness import save
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.checkpoints import EpochLog
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

LOSSES = ("ials", "bpr")
NAMES = ["userId", "movieId", "rating", "timestamp"]


def ml_latest_small() -> pd.DataFrame:
    """671 users, 100,004 ratings."""
    return pd.read_csv(FOLDER / "ml-latest-small" / "ratings.csv")


def ml_100k() -> pd.DataFrame:
    """943 users, 100,000 ratings: the data of `make run`."""
    return pd.read_csv(CACHE / "ml-100k.inter", sep="\t", names=NAMES, header=0)


DATASETS = {"ml-latest-small": ml_latest_small, "ml-100k": ml_100k}


def nights(dataset: str) -> tuple[TrainingPairs, TrainingPairs, TrainingPairs, TrainingPairs]:
    """Pairs of the night before and its validation, of tonight and its own, all of tonight's users and items."""
    ratings = DATASETS[dataset]().sort_values(["userId", "timestamp", "movieId"])
    users = pd.factorize(ratings["userId"])[0].astype(np.int32)
    items = pd.factorize(ratings["movieId"])[0].astype(np.int32)
    place = ratings.groupby("userId").cumcount() / ratings.groupby("userId")["movieId"].transform("size")
    known = np.unique(items[place < 0.9])
    shape = int(users.max()) + 1, int(items.max()) + 1

    def pairs(chosen: pd.Series) -> TrainingPairs:
        is_chosen = chosen.to_numpy() & np.isin(items, known)
        return TrainingPairs(users[is_chosen], items[is_chosen], np.ones(is_chosen.sum(), np.float32), *shape)

    between = (place >= 0.87) & (place < 0.9)
    return pairs(place < 0.87), pairs(between), pairs(place < 0.9), pairs(place >= 0.9)


def seconds_to(goal: float, history: tuple[EpochLog, ...]) -> float:
    """When the goal is reached; infinite when it is not."""
    taken = 0.0
    for log in history:
        taken += log.seconds
        if (log.validation_ndcg or 0.0) >= goal:
            return taken
    return float("inf")


def _best(history: tuple[EpochLog, ...]) -> float:
    return max(log.validation_ndcg or 0.0 for log in history)


def run(dataset: str, loss: str, rounds: int) -> None:
    before, next_day, tonight, validation = nights(dataset)
    settings = ModelSettings.model_validate({"loss": loss, "embedding_dim": 64})
    earlier = fit_embeddings(before, settings, 0, validation=next_day).embeddings
    seeds, starts = range(1, rounds + 1), {"cold": None, "warm": earlier}
    fits: dict[str, list[tuple[EpochLog, ...]]] = {"cold": [], "warm": []}
    for seed, (name, start) in itertools.product(seeds, starts.items()):
        fits[name].append(fit_embeddings(tonight, settings, seed, validation=validation, warm_start=start).history)
    best = {name: float(np.median([_best(history) for history in histories])) for name, histories in fits.items()}
    cold = float(np.median([seconds_to(_best(history), history) for history in fits["cold"]]))
    warm = float(np.median([seconds_to(best["cold"], history) for history in fits["warm"]]))
    first = float(np.median([history[0].validation_ndcg or 0.0 for history in fits["warm"]]))
    line = {
        "benchmark": "warm_start",
        "dataset": dataset,
        "model": loss,
        "cold_s": round(cold, 3),
        "warm_s": round(warm, 3) if np.isfinite(warm) else None,
        "times_faster": round(cold / warm, 2) if np.isfinite(warm) else None,
        "best_ndcg@10": {name: round(value, 4) for name, value in best.items()},
        "first_warm_ndcg@10": round(first, 4),
        "rounds": rounds,
    }
    print(json.dumps(save("warm_start", line)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="the same in both")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name, each in itertools.product(DATASETS, LOSSES):
        if (CACHE / "ml-100k.inter").exists() if name == "ml-100k" else is_there(name):
            run(name, each, options.rounds)
