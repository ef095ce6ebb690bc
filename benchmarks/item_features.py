"""Whether genres, directors and actors of movies help a `two_tower` model: all of MovieLens-1M, and a tenth of it.

A tenth of the pairs is held out; of the rest all, or a tenth drawn at random, train. NDCG at 10 over all movies, of the
best epoch, which is chosen on the same pairs for both: the difference is what counts.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pyarrow.parquet as pq

from benchmarks.datasets import FOLDER, is_there, ml_1m
from benchmarks.harness import save
from benchmarks.quality import SEED, some_pairs, without_a_tenth
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.features import ItemFeatures, find_features
from recsys_spark.models.training import fit_embeddings

NAMES = ("genres", "director", "actors")
SHARES = {"small": (0.1,), "full": (0.1, 1.0)}


def features() -> ItemFeatures:
    """Of the rated movies, in the order of their ids; some have none."""
    known = {row["item"]: row for row in pq.read_table(FOLDER / "ml-1m" / "items.parquet").to_pylist()}
    rated = np.unique(pq.read_table(FOLDER / "ml-1m" / "ratings.parquet", columns=["item"]).column("item"))
    rows = (known.get(int(item), {}) for item in rated)
    return find_features(({name: row.get(name) or "" for name in NAMES} for row in rows), NAMES)


def run(share: float) -> None:
    train, validation = without_a_tenth(ml_1m())
    if share < 1:
        train = some_pairs(train, np.random.default_rng(SEED).random(len(train)) < share)
    known, found = features(), {}
    for name, chosen in (("without", ()), ("with", NAMES)):
        settings = ModelSettings(loss="softmax", architecture="two_tower", patience=3, item_features=chosen)
        fit = fit_embeddings(train, settings, SEED, validation=validation, item_features=known if chosen else None)
        best = fit.history[fit.best_epoch - 1]
        seconds = float(np.median([log.seconds for log in fit.history]))
        found[name] = {"ndcg@10": round(best.validation_ndcg or 0.0, 4), "epochs": fit.best_epoch,
                       "epoch_s": round(seconds, 2)}  # fmt: skip
    line = {"benchmark": "item_features", "dataset": "ml-1m", "pairs": len(train), "features": known.size, **found}
    print(json.dumps(save("item_features", line)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: all of the pairs, too")
    options = parser.parse_args()
    if is_there("ml-1m"):
        for each in SHARES[options.size]:
            run(each)
