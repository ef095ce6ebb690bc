"""How the settings of `ials` for MovieLens-1M, leave one out, were chosen: on training pairs alone.

One pair of each user is drawn from the training split and ranked among 99 items that the user has not seen, as the test
does. Prints a JSON line for each point of the grid, the best last.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import is_there, ncf_train
from benchmarks.quality import SEED, rank_given, some_pairs
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

GRID = {"embedding_dim": (192,), "unobserved_weight": (0.1, 0.15, 0.3, 0.6), "l2": (0.004, 0.007, 0.01, 0.02)}
EPOCHS = 12


def without_one(pairs: TrainingPairs) -> tuple[TrainingPairs, NDArray[np.int64]]:
    """The pairs without one of each user, and the items to rank, (users, 100), of which the first is that one."""
    random, starts = np.random.default_rng(SEED), pairs.indptr()
    drawn = starts[:-1] + (random.random(pairs.n_users) * np.diff(starts)).astype(np.int64)
    given = np.zeros((pairs.n_users, 100), np.int64)
    for user, start, stop in zip(range(pairs.n_users), starts[:-1], starts[1:], strict=True):
        unseen = np.setdiff1d(np.arange(pairs.n_items), pairs.item_idx[start:stop], assume_unique=True)
        given[user, 1:] = random.choice(unseen, 99, replace=False)
    given[:, 0] = pairs.item_idx[drawn]
    is_kept = np.ones(len(pairs), bool)
    is_kept[drawn] = False
    return some_pairs(pairs, is_kept), given


def main() -> None:
    train, given = without_one(ncf_train())
    lines = []
    for values in itertools.product(*GRID.values()):
        settings = dict(zip(GRID, values, strict=True))
        fit = fit_embeddings(train, ModelSettings.model_validate(settings), SEED, epochs=EPOCHS)
        lines.append({**settings, **rank_given(fit.embeddings, train, given)})
        print(json.dumps(lines[-1]), flush=True)
    print(json.dumps({"best": max(lines, key=lambda line: line["ndcg@10"])}))


if __name__ == "__main__":
    if is_there("ml-1m"):
        main()
