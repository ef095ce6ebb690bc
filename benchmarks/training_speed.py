"""Training on synthetic pairs, popularity as in a shop, beside other libraries.

`ials`: a pass over all interactions by alternating least squares, beside the same pass of implicit and of MLlib.
An epoch of a Keras `fit`: users, then items, 64 dimensions, all processors. implicit by conjugate gradient, three steps
a row as here, and by Cholesky. MLlib's pass is half of what two passes more take in a training, measured once, at the
end. `mse`: an epoch, beside some steps of Keras' own layers and Adam. Then both train anew on ratings that follow from
latent tastes, the peer for one epoch: `equal_loss` has the seconds until ours, after whole epochs, errs no more than it
does on held-out ratings, with what both compile. `sampled_softmax`: epochs in batches of 8,192 positives, users with
all of theirs; how fast it learns is in `time_to_quality`.

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
from typing import Any

import numpy as np
import pandas as pd
from pyspark.ml.recommendation import ALS
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.bpr_epochs import PairwiseCase, run_pairwise
from benchmarks.harness import PROJECT, report, run_cases
from benchmarks.jobs import CORES, spark_session
from benchmarks.quality import some_pairs
from benchmarks.synthetic import Case, Seconds
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.backend import keras
from recsys_spark.models.batches import PairBatches, StepGroups
from recsys_spark.models.closed_form import StepNumbers
from recsys_spark.models.interactions import TrainingPairs, select_trained
from recsys_spark.models.training import build_model
from recsys_spark.models.validation import RatingValidation


@dataclass(frozen=True)
class PointwiseCase:
    """Squared errors of ratings, in batches of one size: an epoch, and so many steps of Keras' own layers with Adam."""

    pairs_of: Case
    batch_size: int
    peer_steps: int

    @property
    def name(self) -> str:
        """As in `mse-8192-1000k-100k`."""
        return self.pairs_of.name.replace("ials", f"mse-{self.batch_size}")


@dataclass(frozen=True)
class SoftmaxCase:
    """Epochs of `sampled_softmax` with so many negatives, which no peer takes part in."""

    pairs_of: Case
    negatives: int

    @property
    def name(self) -> str:
        """As in `softmax-256-1000k-100k`."""
        return self.pairs_of.name.replace("ials", f"softmax-{self.negatives}")


MOST_EPOCHS = 20
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


def run_pointwise(case: PointwiseCase, rounds: int) -> None:
    """Seconds a million samples."""
    pairs = case.pairs_of.pairs()
    settings = ModelSettings(loss="mse", batch_size=case.batch_size)
    ours, _ = build_model(select_trained(pairs, 1, 1), settings, 0, None)
    stock = plain_model(pairs.n_users, pairs.n_items)
    peer = f"keras_fit_adam_{case.batch_size}"
    # All steps of an epoch of ours, because the shuffle that each begins with is work of them all.
    contenders = {PROJECT: (ours, -(-len(pairs) // case.batch_size)), peer: (stock, case.peer_steps)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, (name, (model, steps)) in itertools.product(range(rounds + 1), contenders.items()):
        batches, each = PairBatches(pairs, case.batch_size, 0), Seconds()
        if name == PROJECT:
            model.fit(StepGroups(batches), epochs=1, verbose=0, shuffle=False, callbacks=[each])
        else:
            model.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[each])
        if number > 0:  # the first compiles
            seconds[name].append(each.each[0] / (steps * case.batch_size) * 1e6)
    speed = round(1e6 / float(np.median(seconds[PROJECT])))
    unit, equal = "seconds a million samples", equal_loss(case, peer)
    report("training_speed", case.name, seconds, unit=unit, samples_a_second=speed, equal_loss=equal)


def equal_loss(case: PointwiseCase, peer: str) -> dict[str, Any]:
    """The error on held-out ratings that an epoch of the peer comes to, and the seconds until both are there."""
    pairs = case.pairs_of.rated()
    is_held_out = np.random.default_rng(1).random(len(pairs)) < 0.02
    train, held_out = some_pairs(pairs, ~is_held_out), some_pairs(pairs, is_held_out)
    stock, seconds = plain_model(pairs.n_users, pairs.n_items), Seconds()
    stock.fit(PairBatches(train, case.batch_size, 0), epochs=1, verbose=0, shuffle=False, callbacks=[seconds])
    idx = (held_out.user_idx, held_out.item_idx)
    predicted = np.asarray(stock.predict(idx, batch_size=65_536, verbose=0)).ravel()
    goal = float(np.sqrt(np.mean(np.square(predicted - held_out.rating))))
    part = select_trained(train, 1, 1)
    ours, batches = build_model(part, ModelSettings(loss="mse", batch_size=case.batch_size), 0, None)
    referee, own, rmse = RatingValidation(part, held_out), Seconds(), [np.inf]
    while rmse[-1] > goal and len(rmse) <= MOST_EPOCHS:
        ours.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[own])
        rmse.append(referee.rmse(ours.score_pairs))
    taken = {PROJECT: round(sum(own.each), 2), peer: round(seconds.each[0], 2)}
    errors = {PROJECT: [round(value, 4) for value in rmse[1:]], peer: [round(goal, 4)]}
    return {"rmse": errors, "seconds": taken, "is_reached": rmse[-1] <= goal}


def plain_model(n_users: int, n_items: int) -> keras.Model:
    """Two embeddings of 64 dimensions and their dot product, as in the tutorials."""
    sides = [keras.Input((), dtype="int32") for _ in range(2)]
    vectors = [keras.layers.Embedding(n, 64)(side) for n, side in zip((n_users, n_items), sides, strict=True)]
    scores = keras.layers.Flatten()(keras.layers.Dot(axes=-1)(vectors))
    model = keras.Model(sides, scores)
    model.compile(optimizer="adam", loss="mse")
    return model


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
