"""How much better lists by neighbors are when their similarity is learned, beside the plain one, on MovieLens-1M.

NDCG@10 over all items on a tenth of the pairs; the epochs are chosen on a tenth of the rest.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from benchmarks.datasets import is_there, ml_1m
from benchmarks.harness import save
from benchmarks.quality import SEED, without_a_tenth
from recsys_spark.model_sections import NeighborhoodSettings
from recsys_spark.models.interactions import TrainedPart, TrainingPairs
from recsys_spark.models.neighborhood import fit_neighborhood
from recsys_spark.models.neighborhood_validation import NeighborhoodReferee
from recsys_spark.models.reconstruction import NearestUsers, rows_of_pairs
from recsys_spark.models.validation import RankingValidation
from recsys_spark.sections import NeighborSettings

SMALL = [("none", 50, 0.2), ("l2", 50, 0.2)]
FULL = [*SMALL, ("none", 200, 0.2), ("none", 200, 0.1), ("l2", 200, 0.2), ("l2", 200, 0.1)]


def run(train: TrainingPairs, test: TrainingPairs, search: NeighborSettings, settings: NeighborhoodSettings) -> None:
    started = time.perf_counter()
    part, validation = without_a_tenth(train)
    chosen = fit_neighborhood(part, settings, search, SEED, validation=validation)
    fit = fit_neighborhood(train, settings, search, SEED, epochs=chosen.best_epoch)
    seconds = time.perf_counter() - started
    whole = TrainedPart(train, train, np.arange(train.n_users), np.arange(train.n_items))
    ranking = RankingValidation(whole, test, train.n_users, SEED)
    referee = NeighborhoodReferee(ranking, NearestUsers(rows_of_pairs(train), search), settings.temperature)
    line = {
        "benchmark": "neighborhood",
        "weighting": search.weighting,
        "k": search.k,
        "temperature": settings.temperature,
        "ndcg@10": round(referee.ndcg(fit.item_vectors), 4),
        "plain_ndcg@10": round(referee.ndcg(np.zeros_like(fit.item_vectors)), 4),
        "popularity_ndcg@10": round(ranking.popularity_ndcg(), 4),
        "epochs": fit.best_epoch,
        "learning_s": round(seconds, 1),
    }
    print(json.dumps(save("neighborhood", line)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: 200 neighbors too")
    if is_there("ml-1m"):
        known, held_out = without_a_tenth(ml_1m())
        for weighting, k, temperature in SMALL if parser.parse_args().size == "small" else FULL:
            search = NeighborSettings(k=k, weighting=weighting)
            settings = NeighborhoodSettings(temperature=temperature, validation_users=2_000)
            run(known, held_out, search, settings)
