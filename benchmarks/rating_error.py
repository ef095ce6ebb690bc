"""The error of predicted ratings, `mse` and `rating_bce`: MovieLens, five random folds, as in the README of Surprise.

The epochs of a fold are chosen on a tenth of its training ratings. RMSE on the scale of 1 to 5 stars.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from benchmarks.datasets import is_there, ml_1m_ratings, ml_100k_ratings
from benchmarks.harness import save
from benchmarks.quality import SEED, some_pairs, without_a_tenth
from examples.fetch_movielens import CACHE
from recsys_spark.kernels.scoring import score_pairs
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.embedding import ratings_of_scores
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

FOLDS = 5
STARS = 4.0  # between the lowest rating, 0, and the highest, 1
LOSSES = ("mse", "rating_bce")


def rmse(embeddings: Embeddings, held_out: TrainingPairs, is_logistic: bool) -> float:
    """In stars; what an untrained user or item gets is popularity, which is no rating: it counts as the mean."""
    users, items = embeddings.scoring_vectors()
    scores = score_pairs(users[held_out.user_idx], items[held_out.item_idx])
    is_known = embeddings.is_trained_user[held_out.user_idx] & embeddings.is_trained_item[held_out.item_idx]
    ratings = ratings_of_scores(np.where(is_known, scores, embeddings.offset), is_logistic)
    return STARS * float(np.sqrt(np.mean((np.clip(ratings, 0, 1) - held_out.rating) ** 2)))


def run(dataset: str, pairs: TrainingPairs, folds: int, loss: str) -> None:
    settings = ModelSettings.model_validate({"loss": loss})
    fold_of = np.random.default_rng(SEED).integers(0, FOLDS, len(pairs))
    errors, seconds, epochs = [], [], []
    for fold in range(folds):
        train, held_out = some_pairs(pairs, fold_of != fold), some_pairs(pairs, fold_of == fold)
        started = time.perf_counter()
        most, validation = without_a_tenth(train)
        epochs.append(fit_embeddings(most, settings, SEED, validation=validation).best_epoch)
        fit = fit_embeddings(train, settings, SEED, epochs=epochs[-1])
        seconds.append(round(time.perf_counter() - started, 1))
        errors.append(round(rmse(fit.embeddings, held_out, settings.is_logistic), 4))
    line = {
        "benchmark": "rating_error",
        "dataset": dataset,
        "model": settings.loss,
        "metrics": {"rmse": round(float(np.mean(errors)), 4)},
        "folds": errors,
        "epochs": epochs,
        "train_s": seconds,
        "seed": SEED,
        "settings": {"loss": loss},
    }
    print(json.dumps(save("rating_error", line)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="small: the first fold")
    options = parser.parse_args()
    wanted = FOLDS if options.size == "full" else 1
    for each in LOSSES:
        if CACHE.is_dir():
            run("ml-100k", ml_100k_ratings(), wanted, each)
        else:
            print("skipped: `make run` fetches MovieLens-100K", file=sys.stderr)
        if is_there("ml-1m"):
            run("ml-1m", ml_1m_ratings(), wanted, each)
