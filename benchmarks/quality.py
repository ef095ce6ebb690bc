"""How well models rank, on public data in published splits: trained as a night does, ranked over all items.

The epochs are chosen on a tenth of the training pairs; then the model is trained on all of them. `gowalla`: recall and
NDCG at 20 (He et al., "LightGCN", SIGIR 2020). `ml-1m-ncf`: hit rate and NDCG at 10 of one held-out item among 99 that
the user has not seen (He et al., "Neural Collaborative Filtering", WWW 2017).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import gowalla, is_there, ncf_candidates, ncf_train
from benchmarks.harness import chosen, save
from benchmarks.ranking import among_given, lists_of, means, means_of
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

SEED = 0
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Run:
    """A data set, settings, and how its lists are measured."""

    dataset: str
    settings: dict[str, Any]
    pairs: Callable[[], TrainingPairs]
    measure: Callable[[Embeddings, TrainingPairs], dict[str, float]]


def of_gowalla(embeddings: Embeddings, train: TrainingPairs) -> dict[str, float]:
    """Recall and NDCG at 20 over all places the user has not been to."""
    users, items = embeddings.scoring_vectors()
    test = gowalla("test")
    best = score_top_k(users, items, IndexLists(train.indptr(), train.item_idx), 20)
    return means(best, IndexLists(test.indptr(), test.item_idx), 20, ("recall", "ndcg"))


def of_ncf(embeddings: Embeddings, train: TrainingPairs) -> dict[str, float]:
    """Hit rate and NDCG at 10 of the user's last item."""
    return rank_given(embeddings, train, ncf_candidates())


def rank_given(embeddings: Embeddings, train: TrainingPairs, given: NDArray[np.int64]) -> dict[str, float]:
    """Hit rate and NDCG at 10 of the first of the items given to each user, (users, given)."""
    users, items = embeddings.scoring_vectors()
    lists = lists_of(lambda some: users[some] @ items.T, len(given))
    return means_of(among_given(lambda: given, ("hit_rate@10", "ndcg@10"))(lists, train))


# The best of a grid (benchmarks/tune_ncf.py) on pairs of the training split.
TUNED = {"loss": "ials", "embedding_dim": 192, "unobserved_weight": 0.3, "l2": 0.007}

SMALL = [
    Run("gowalla", {"loss": "ials"}, gowalla, of_gowalla),
    Run("gowalla", {"loss": "ials", "embedding_dim": 256}, gowalla, of_gowalla),
    Run("ml-1m-ncf", {"loss": "ials"}, ncf_train, of_ncf),
    Run("ml-1m-ncf", TUNED, ncf_train, of_ncf),
]
FULL = [
    *SMALL,
    Run("gowalla", {"loss": "spectral", "embedding_dim": 512}, gowalla, of_gowalla),
    Run("gowalla", {"loss": "spectral", "embedding_dim": 1024}, gowalla, of_gowalla),
    Run("gowalla", {"loss": "softmax"}, gowalla, of_gowalla),
    Run("ml-1m-ncf", {"loss": "softmax"}, ncf_train, of_ncf),
]


def without_a_tenth(pairs: TrainingPairs) -> tuple[TrainingPairs, TrainingPairs]:
    """The pairs without a tenth, and the tenth."""
    is_kept = np.random.default_rng(SEED).random(len(pairs)) >= VALIDATION_SHARE
    return some_pairs(pairs, is_kept), some_pairs(pairs, ~is_kept)


def some_pairs(pairs: TrainingPairs, is_chosen: NDArray[np.bool_]) -> TrainingPairs:
    arrays = (array[is_chosen] for array in (pairs.user_idx, pairs.item_idx, pairs.rating))
    return TrainingPairs(*arrays, pairs.n_users, pairs.n_items)


def run(case: Run) -> None:
    pairs, settings = case.pairs(), ModelSettings(**case.settings)
    train, validation = without_a_tenth(pairs)
    started = time.perf_counter()
    epochs = fit_embeddings(train, settings, SEED, validation=validation).best_epoch
    chosen = time.perf_counter()
    fit = fit_embeddings(pairs, settings, SEED, epochs=epochs)
    trained = time.perf_counter()
    line = {
        "benchmark": "quality",
        "dataset": case.dataset,
        "model": settings.loss,
        "metrics": case.measure(fit.embeddings, pairs),
        "train_s": round(trained - chosen, 2),
        "choose_epochs_s": round(chosen - started, 2),
        "epochs": epochs,
        "seed": SEED,
        "settings": case.settings,
    }
    print(json.dumps(save("quality", line)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", choices=["small", "full"], default="small", help="full: the spectral and softmax models too"
    )
    parser.add_argument("--dataset", default="", help="run the one of this name, or else those whose name contains it")
    parser.add_argument("--loss", default="", help="run those of this loss")
    options = parser.parse_args()
    runs = SMALL if options.size == "small" else FULL
    datasets = chosen(parser, "--dataset", options.dataset, {each.dataset: each.dataset for each in runs})
    for each in runs:
        is_wanted = each.dataset in datasets and options.loss in ("", each.settings["loss"])
        if is_wanted and is_there(each.dataset.split("-ncf")[0]):
            run(each)
