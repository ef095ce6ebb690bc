"""How much a model loses that is trained on a sample of the users and folds all of them in.

A tenth of the pairs is held out; NDCG at 10 over all items and users. `lost_percent` is against the model of all users,
with the settings that were best for that one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np

from benchmarks.datasets import gowalla, is_there, ml_1m
from benchmarks.harness import chosen, save
from benchmarks.quality import SEED, some_pairs, without_a_tenth
from benchmarks.ranking import means
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.fold_in import fold_in_rows, places_of
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.alternating import sampled_l2
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

RUNS = {
    "ml-1m": (ml_1m, ModelSettings(unobserved_weight=1.0, l2=0.003, epochs=10)),
    "gowalla": (gowalla, ModelSettings(epochs=5)),
}
SHARES = (0.2, 0.5)


def folded_in(embeddings: Embeddings, train: TrainingPairs, loss: WholeDataLoss) -> Embeddings:
    """All users, from the trained items."""
    rows = CsrRows(train.indptr(), train.item_idx, train.rating, train.n_items)
    is_trained = embeddings.is_trained_item
    fixed = fixed_side(embeddings.item_vectors[is_trained])
    vectors, flags = fold_in_rows(rows, places_of(is_trained), fixed, loss, 1, threads=2)
    zeros = np.zeros(len(vectors), np.float32)
    squares = np.zeros((len(vectors), 2), np.float32)
    return replace(embeddings, user_vectors=vectors, user_biases=zeros, is_trained_user=flags, user_squares=squares)


def ndcg(embeddings: Embeddings, train: TrainingPairs, held_out: TrainingPairs) -> float:
    """NDCG@10 over all items that the user has not seen."""
    users, items = embeddings.scoring_vectors()
    best = score_top_k(users, items, IndexLists(train.indptr(), train.item_idx), 10)
    return means(best, IndexLists(held_out.indptr(), held_out.item_idx), 10, ("ndcg",))["ndcg@10"]


def run(dataset: str) -> None:
    read, settings = RUNS[dataset]
    train, held_out = without_a_tenth(read())
    whole = fit_embeddings(train, settings, SEED, epochs=settings.epochs).embeddings
    best = ndcg(whole, train, held_out)
    numbers = np.random.default_rng(SEED).random(train.n_users)
    for share in SHARES:
        sample = some_pairs(train, (numbers < np.quantile(numbers, share))[train.user_idx])
        l2 = sampled_l2(settings.l2_penalty, share)
        fit = fit_embeddings(sample, settings.model_copy(update={"l2": l2}), SEED, epochs=settings.epochs)
        assert fit.whole_data_loss is not None
        loss = replace(fit.whole_data_loss, l2=settings.l2_penalty)
        reached = ndcg(folded_in(fit.embeddings, train, loss), train, held_out)
        line = {
            "benchmark": "fold_in",
            "dataset": dataset,
            "sampled_share": share,
            "metrics": {"ndcg@10": reached, "ndcg@10 of all users": best},
            "lost_percent": round(100 * (1 - reached / best), 1),
            "seed": SEED,
            "settings": settings.model_dump(exclude_defaults=True),
        }
        print(json.dumps(save("fold_in", line)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="the same in both")
    parser.add_argument("--dataset", default="", help="run the one of this name, or else those whose name contains it")
    options = parser.parse_args()
    for each in chosen(parser, "--dataset", options.dataset, {name: name for name in RUNS}):
        if is_there(each):
            run(each)
