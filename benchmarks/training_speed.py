"""Training on synthetic pairs, popularity as in a shop, beside other libraries.

`ials`: a pass over all interactions by alternating least squares, beside the same pass of implicit and of MLlib.
An epoch of a Keras `fit`: users, then items, 64 dimensions, all processors. implicit by conjugate gradient, three steps
a row as here, and by Cholesky. MLlib's pass is half of what two passes more take in a training, measured once, at the
end. `mse`: an epoch, beside some steps of Keras' own layers and Adam. Then both train anew on ratings that follow from
latent tastes, the peer with a mean and biases as ours has, by each of four learning rates until an epoch gains
nothing, four at most: `equal_loss` has the seconds to the epoch at which its best rate errs least on held-out ratings,
and until ours, after whole epochs, errs no more, with what both compile. `sampled_softmax`: epochs in batches of 8,192
positives, users with all of theirs; how fast it learns is in `time_to_quality`.

`bpr`: an epoch in batches of 2,048, 64 dimensions, one uniform negative a positive, beside RecBole's BPR by its own
Trainer, loader and Adam on as many threads and on one; `make bench-recbole` makes the environment it runs in. On a
million users its Adam walks 70 million weights a step, so there it takes some steps only. On MovieLens-1M, a tenth held
out, both train as many epochs: `ndcg` has NDCG@10 after each, `equal_ndcg` the seconds until the lower of both bests,
with what ours compiles in its first epoch. Settings are the defaults of each, but for RecBole's learning rate: of .001,
its own, .002 and .005 the one that ranks best in so many epochs.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.ml.recommendation import ALS
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.bpr_epochs import PairwiseCase, run_pairwise
from benchmarks.harness import PROJECT, report, run_cases
from benchmarks.jobs import CORES, spark_session
from benchmarks.rating_epochs import PointwiseCase, run_pointwise
from benchmarks.synthetic import Case, Seconds
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.closed_form import StepNumbers
from recsys_spark.models.interactions import TrainingPairs, select_trained
from recsys_spark.models.training import build_model


@dataclass(frozen=True)
class SoftmaxCase:
    """Epochs of `sampled_softmax` with so many negatives, which no peer takes part in."""

    pairs_of: Case
    negatives: int

    @property
    def name(self) -> str:
        """As in `softmax-256-1000k-100k`."""
        return self.pairs_of.name.replace("ials", f"softmax-{self.negatives}")


AnyCase = SoftmaxCase | Case | PointwiseCase | PairwiseCase
SHOP, LARGE = Case(6_040, 3_706, 900_000), Case(1_000_000, 100_000, 8_500_000)
SMALL: list[AnyCase] = [SHOP, PairwiseCase(SHOP), SoftmaxCase(SHOP, 256)]
FULL = [
    *SMALL,
    LARGE,
    PointwiseCase(LARGE, 8192, 15),
    PointwiseCase(LARGE, 65_536, 10),
    PairwiseCase(LARGE, peer_steps=10),
    SoftmaxCase(LARGE, 256),
    SoftmaxCase(LARGE, 1024),
    PairwiseCase(None),
]


def passes_of_project(pairs: TrainingPairs) -> Iterator[float]:
    """Seconds of each pass."""
    settings = ModelSettings(loss="ials")
    model, _ = build_model(select_trained(pairs, 1, 1), settings, 0, None)
    while True:
        seconds = Seconds()
        model.fit(StepNumbers(2), epochs=1, verbose=0, shuffle=False, callbacks=[seconds])
        yield seconds.each[0]


def passes_of_implicit(pairs: TrainingPairs, use_cg: bool) -> Iterator[float]:
    """Seconds of each pass."""
    from implicit.als import AlternatingLeastSquares

    matrix = sparse.csr_matrix((pairs.rating, (pairs.user_idx, pairs.item_idx)), shape=(pairs.n_users, pairs.n_items))
    threads = os.cpu_count() or 1
    model = AlternatingLeastSquares(64, iterations=1, use_cg=use_cg, num_threads=threads, random_state=0)
    ended: list[float] = []
    while True:
        # Of two passes the second, because the first has to wait for its preparation.
        model.iterations, ended = 2, []
        model.fit(matrix, show_progress=False, callback=lambda *_, ended=ended: ended.append(time.perf_counter()))
        yield ended[1] - ended[0]


def pass_of_mllib(pairs: TrainingPairs) -> float:
    """Seconds of a pass."""
    with spark_session() as spark:
        table = pd.DataFrame({"user": pairs.user_idx, "item": pairs.item_idx, "rating": pairs.rating})
        ratings = spark.createDataFrame(table).repartition(2 * CORES).cache()
        ratings.count()
        als = ALS(rank=64, implicitPrefs=True, userCol="user", itemCol="item", ratingCol="rating", seed=0)

        def seconds(passes: int) -> float:
            started = time.perf_counter()
            als.setMaxIter(passes).fit(ratings)
            return time.perf_counter() - started

        seconds(1)
        return (seconds(3) - seconds(1)) / 2


def run(case: AnyCase, rounds: int) -> None:
    """Time the contenders of a case in turn."""
    if isinstance(case, PairwiseCase):
        run_pairwise(case, rounds)
    elif isinstance(case, SoftmaxCase):
        run_softmax(case, rounds)
    elif isinstance(case, PointwiseCase):
        run_pointwise(case, rounds)
    else:
        run_passes(case, rounds)


def run_softmax(case: SoftmaxCase, rounds: int) -> None:
    """Seconds a million positives."""
    pairs, seconds = case.pairs_of.pairs(), Seconds()
    settings = ModelSettings(loss="sampled_softmax", negatives=case.negatives, spectral_start=False)
    model, batches = build_model(select_trained(pairs, 1, 1), settings, 0, None)
    # Two epochs before, because one more number of users in a batch may have to be compiled.
    losses = model.fit(batches, epochs=rounds + 2, verbose=0, shuffle=False, callbacks=[seconds]).history["loss"]
    a_million = {PROJECT: [each / len(pairs) * 1e6 for each in seconds.each[2:]]}
    speed = round(1e6 / float(np.median(a_million[PROJECT])))
    learned = [round(losses[0], 4), round(losses[-1], 4)]
    unit = "seconds a million positives"
    report("training_speed", case.name, a_million, unit=unit, positives_a_second=speed, losses=learned)


def run_passes(case: Case, rounds: int) -> None:
    """Seconds a pass."""
    pairs = case.pairs()
    contenders = {
        PROJECT: passes_of_project(pairs),
        "implicit_als": passes_of_implicit(pairs, use_cg=True),
        "implicit_als_cholesky": passes_of_implicit(pairs, use_cg=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, (name, passes) in itertools.product(range(rounds + 1), contenders.items()):
        # implicit asks for one thread of BLAS, because it has threads of its own.
        with threadpool_limits(1):
            taken = next(passes)
        if number > 0:
            seconds[name].append(taken)
    seconds["mllib_als"] = [pass_of_mllib(pairs)]
    speed = round(len(pairs) / float(np.median(seconds[PROJECT])))
    report("training_speed", case.name, seconds, interactions=len(pairs), interactions_a_second=speed)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
