"""How much sooner a training that starts from the night before is as good as one from scratch ever gets.

MovieLens-latest-small and MovieLens-100K, each user's ratings by time. Tonight has the first 90 % and is validated on
the last 10 %. The night before had 87 % and was validated on the next 3 %: `after` 1 night it was the first, after 5
the fifth, each of which started from the one before. So small sets give each seed another result, so the goal is the
median of what trainings from scratch reach at their best; none when the warm ones' median does not get there. Times are
medians, of training and validation together, from the start of the first epoch.
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
from recsys_spark.models.embeddings import Embeddings
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


BEFORE, TONIGHT = (0.75, 0.78, 0.81, 0.84, 0.87), 0.9
DATASETS = {"ml-latest-small": ml_latest_small, "ml-100k": ml_100k}


Night = tuple[TrainingPairs, TrainingPairs]
"""What it knew, and what it was validated on."""


def nights(dataset: str) -> list[Night]:
    """All nights, tonight last; all know tonight's users and items."""
    ratings = DATASETS[dataset]().sort_values(["userId", "timestamp", "movieId"])
    users = pd.factorize(ratings["userId"])[0].astype(np.int32)
    items = pd.factorize(ratings["movieId"])[0].astype(np.int32)
    place = ratings.groupby("userId").cumcount() / ratings.groupby("userId")["movieId"].transform("size")
    known = np.unique(items[place < TONIGHT])
    shape = int(users.max()) + 1, int(items.max()) + 1

    def pairs(chosen: pd.Series) -> TrainingPairs:
        is_chosen = chosen.to_numpy() & np.isin(items, known)
        return TrainingPairs(users[is_chosen], items[is_chosen], np.ones(is_chosen.sum(), np.float32), *shape)

    ends = (*BEFORE, TONIGHT, 2.0)
    return [(pairs(place < end), pairs((place >= end) & (place < later))) for end, later in itertools.pairwise(ends)]


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
    *before, (tonight, validation) = nights(dataset)
    settings = ModelSettings.model_validate({"loss": loss, "embedding_dim": 64})
    starts: dict[int, Embeddings | None] = {0: None}
    for count in (1, len(before)):
        start = None
        for known, next_day in before[-count:]:
            start = fit_embeddings(known, settings, 0, validation=next_day, warm_start=start).embeddings
        starts[count] = start
    fits: dict[int, list[tuple[EpochLog, ...]]] = {count: [] for count in starts}
    for seed, (count, start) in itertools.product(range(1, rounds + 1), starts.items()):
        fits[count].append(fit_embeddings(tonight, settings, seed, validation=validation, warm_start=start).history)
    goal = float(np.median([_best(history) for history in fits[0]]))
    cold = float(np.median([seconds_to(_best(history), history) for history in fits[0]]))
    after = {count: _compare(goal, cold, histories) for count, histories in fits.items() if count}
    line = {
        "benchmark": "warm_start",
        "dataset": dataset,
        "model": loss,
        "goal": {"ndcg@10": round(goal, 4)},
        "cold_s": round(cold, 3),
        "after": after,
        "rounds": rounds,
    }
    print(json.dumps(save("warm_start", line)), flush=True)


def _compare(goal: float, cold: float, histories: list[tuple[EpochLog, ...]]) -> dict[str, float | None]:
    warm = float(np.median([seconds_to(goal, history) for history in histories]))
    first = float(np.median([history[0].validation_ndcg or 0.0 for history in histories]))
    return {
        "warm_s": round(warm, 3) if np.isfinite(warm) else None,
        "times_faster": round(cold / warm, 2) if np.isfinite(warm) else None,
        "best_ndcg@10": round(float(np.median([_best(history) for history in histories])), 4),
        "first_ndcg@10": round(first, 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="the same in both")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name, each in itertools.product(DATASETS, LOSSES):
        if (CACHE / "ml-100k.inter").exists() if name == "ml-100k" else is_there(name):
            run(name, each, options.rounds)
