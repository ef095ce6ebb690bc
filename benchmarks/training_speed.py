"""Training on synthetic pairs, popularity as in a shop, beside other libraries.

`ials`: a pass over all interactions by alternating least squares, beside the same pass of implicit and of MLlib.
An epoch of a Keras `fit`: users, then items, 64 dimensions, all processors. implicit by conjugate gradient, three steps
a row as here, and by Cholesky. MLlib's pass is half of what two passes more take in a training, measured once, at the
end. `mse`: steps of an epoch, beside Keras' own layers and Adam.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALS
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.datasets import is_there, ml_1m
from benchmarks.harness import PROJECT, report, run_cases
from benchmarks.jobs import CORES, spark_session
from benchmarks.peers import recbole_process
from benchmarks.peers.recbole_process import Epoch, RecBole, recbole_bpr
from benchmarks.quality import without_a_tenth
from benchmarks.time_to_quality import seconds_to
from recsys_spark.models.backend import keras
from recsys_spark.models.batches import PairBatches
from recsys_spark.models.closed_form import StepNumbers
from recsys_spark.models.interactions import TrainedPart, TrainingPairs, select_trained
from recsys_spark.models.training import build_model
from recsys_spark.models.validation import RankingValidation
from recsys_spark.sections import ModelSettings


@dataclass(frozen=True)
class Case:
    """So many users, items and interactions."""

    users: int
    items: int
    interactions: int

    @property
    def name(self) -> str:
        """As in `ials-1000k-100k`."""
        return f"ials-{self.users // 1000}k-{self.items // 1000}k"

    def pairs(self) -> TrainingPairs:
        """Users of all sizes, items of all popularities."""
        random = np.random.default_rng(0)
        sizes = random.lognormal(0.0, 1.0, self.users)
        lengths = np.maximum(1, sizes / sizes.mean() * self.interactions / self.users).astype(np.int64)
        popularity = random.permutation(1.0 / (np.arange(self.items) + 10.0) ** 0.8)
        drawn = np.searchsorted(np.cumsum(popularity / popularity.sum()), random.random(lengths.sum()))
        keys = np.unique(np.repeat(np.arange(self.users), lengths) * self.items + drawn.clip(0, self.items - 1))
        users, items = (part.astype(np.int32) for part in np.divmod(keys, self.items))
        return TrainingPairs(users, items, np.ones(len(keys), np.float32), self.users, self.items)


@dataclass(frozen=True)
class PointwiseCase:
    """Squared errors of ratings, in batches of one size: so many steps of ours, and of Keras' own layers with Adam."""

    pairs_of: Case
    batch_size: int
    steps: int
    peer_steps: int

    @property
    def name(self) -> str:
        """As in `mse-8192-1000k-100k`."""
        return self.pairs_of.name.replace("ials", f"mse-{self.batch_size}")


@dataclass(frozen=True)
class PairwiseCase:
    """Epochs of `bpr`, of RecBole's so many steps when given; a `pairs_of` of None is MovieLens-1M."""

    pairs_of: Case | None
    peer_steps: int | None = None

    @property
    def name(self) -> str:
        """As in `bpr-2048-1000k-100k`."""
        return self.pairs_of.name.replace("ials", "bpr-2048") if self.pairs_of else "bpr-2048-ml-1m"


AnyCase = Case | PointwiseCase | PairwiseCase
SHOP, LARGE = Case(6_040, 3_706, 900_000), Case(1_000_000, 100_000, 8_500_000)
SMALL: list[AnyCase] = [SHOP, PairwiseCase(SHOP)]
FULL = [
    *SMALL,
    LARGE,
    PointwiseCase(LARGE, 8192, 200, 15),
    PointwiseCase(LARGE, 65_536, 50, 10),
    PairwiseCase(LARGE, peer_steps=10),
    PairwiseCase(None),
]
LEARNING_EPOCHS = 20
BPR = ModelSettings(loss="bpr", batch_size=2048, negatives=1)
RECBOLE_LEARNING_RATE = 0.002
RECBOLE_THREADS = {"recbole_bpr": CORES, "recbole_bpr_one_thread": 1}


class _Seconds(keras.callbacks.Callback):  # type: ignore[misc]
    """Wall seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.each.append(time.perf_counter() - self._started)


def passes_of_project(pairs: TrainingPairs) -> Iterator[float]:
    """Seconds of each pass."""
    settings = ModelSettings(loss="ials")
    model, _ = build_model(select_trained(pairs, 1, 1), settings, 0, None)
    while True:
        seconds = _Seconds()
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


class ProjectBpr:
    """Ours, with the methods of `RecBole`."""

    def __init__(self, part: TrainedPart) -> None:
        self._pairs, self._epoch = part.pairs, 0
        self._model, _ = build_model(part, BPR, 0, None)

    def train(self, steps: int | None = None) -> Epoch:
        """An epoch, or the first steps of one."""
        batches, seconds = PairBatches(self._pairs, BPR.pairs_in_batch, 0, self._epoch), _Seconds()
        fit = self._model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[seconds])
        self._epoch += 1
        positives = min((steps or len(batches)) * BPR.pairs_in_batch, len(self._pairs))
        return Epoch(seconds.each[0], positives, fit.history["loss"][0])

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of users and items, biases among them."""
        return self._model.ranking_vectors(np.arange(self._pairs.n_users))


def run(case: AnyCase, rounds: int) -> None:
    """Time the contenders of a case in turn."""
    if isinstance(case, PairwiseCase):
        run_pairwise(case, rounds)
    elif isinstance(case, PointwiseCase):
        run_pointwise(case, rounds)
    else:
        run_passes(case, rounds)


def run_pointwise(case: PointwiseCase, rounds: int) -> None:
    """Seconds a million samples."""
    pairs = case.pairs_of.pairs()
    settings = ModelSettings(loss="mse", batch_size=case.batch_size)
    ours, _ = build_model(select_trained(pairs, 1, 1), settings, 0, None)
    stock = plain_model(pairs.n_users, pairs.n_items)
    peer = f"keras_fit_adam_{case.batch_size}"
    contenders = {PROJECT: (ours, case.steps), peer: (stock, case.peer_steps)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, (name, (model, steps)) in itertools.product(range(rounds + 1), contenders.items()):
        batches, each = PairBatches(pairs, case.batch_size, 0), _Seconds()
        model.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[each])
        if number > 0:  # the first compiles
            seconds[name].append(each.each[0] / (steps * case.batch_size) * 1e6)
    speed = round(1e6 / float(np.median(seconds[PROJECT])))
    report("training_speed", case.name, seconds, unit="seconds a million samples", samples_a_second=speed)


def plain_model(n_users: int, n_items: int) -> keras.Model:
    """Two embeddings of 64 dimensions and their dot product, as in the tutorials."""
    sides = [keras.Input((), dtype="int32") for _ in range(2)]
    vectors = [keras.layers.Embedding(n, 64)(side) for n, side in zip((n_users, n_items), sides, strict=True)]
    scores = keras.layers.Flatten()(keras.layers.Dot(axes=-1)(vectors))
    model = keras.Model(sides, scores)
    model.compile(optimizer="adam", loss="mse")
    return model


def run_pairwise(case: PairwiseCase, rounds: int) -> None:
    """Seconds a million positives."""
    if case.pairs_of is None:
        if is_there("ml-1m"):
            run_learning(case, max(rounds, LEARNING_EPOCHS))
        return
    part = select_trained(case.pairs_of.pairs(), 1, 1)
    with bpr_contenders(part) as contenders:
        epochs: dict[str, list[Epoch]] = {name: [] for name in contenders}
        for _, (name, contender) in itertools.product(range(rounds + 1), contenders.items()):
            epochs[name].append(contender.train(None if name == PROJECT else case.peer_steps))
    report_epochs(case, epochs)


def run_learning(case: PairwiseCase, rounds: int) -> None:
    """The same, and how well they rank after each epoch."""
    train, held_out = without_a_tenth(ml_1m())
    part = select_trained(train, 1, 1)
    referee = RankingValidation(part, held_out, train.n_users, 0)
    with bpr_contenders(part) as contenders:
        epochs: dict[str, list[Epoch]] = {name: [] for name in contenders}
        ndcg: dict[str, list[float]] = {name: [] for name in contenders}
        for _, (name, contender) in itertools.product(range(rounds + 1), contenders.items()):
            epochs[name].append(contender.train())
            users, items = contender.vectors()
            ndcg[name].append(round(referee.ndcg(users[referee.users], items), 4))
    goal = min(max(values) for values in ndcg.values())
    reached = {
        name: seconds_to(goal, list(zip(np.cumsum([epoch.seconds for epoch in each]), ndcg[name], strict=True)))
        for name, each in epochs.items()
    }
    equal = {"ndcg@10": goal, "seconds": {name: round(float(seconds), 2) for name, seconds in reached.items()}}
    report_epochs(case, epochs, ndcg=ndcg, popularity_ndcg=round(referee.popularity_ndcg(), 4), equal_ndcg=equal)


@contextmanager
def bpr_contenders(part: TrainedPart) -> Iterator[dict[str, ProjectBpr | RecBole]]:
    """Ours, and RecBole where it is."""
    contenders: dict[str, ProjectBpr | RecBole] = {PROJECT: ProjectBpr(part)}
    with ExitStack() as processes:
        for name, threads in RECBOLE_THREADS.items() if recbole_process.is_there() else ():
            peer = recbole_bpr(part.pairs, threads, RECBOLE_LEARNING_RATE)
            contenders[name] = processes.enter_context(peer)
        yield contenders


def report_epochs(case: PairwiseCase, epochs: dict[str, list[Epoch]], **more: Any) -> None:
    """Of each contender the first epoch is warm-up."""
    seconds = {name: [each.seconds / each.positives * 1e6 for each in own[1:]] for name, own in epochs.items()}
    losses = {name: [round(own[place].loss, 4) for place in (0, -1)] for name, own in epochs.items()}
    speed = {name: round(1e6 / float(np.median(values))) for name, values in seconds.items()}
    unit = "seconds a million positives"
    report("training_speed", case.name, seconds, unit=unit, positives_a_second=speed, losses=losses, **more)


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
