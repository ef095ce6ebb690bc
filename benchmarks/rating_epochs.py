"""Epochs of `mse` beside Keras' own layers with Adam: a part of `training_speed`, which says how."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import PROJECT, report
from benchmarks.quality import some_pairs
from benchmarks.synthetic import Case, Seconds
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.backend import keras
from recsys_spark.models.batches import PairBatches, StepGroups
from recsys_spark.models.interactions import TrainedPart, select_trained
from recsys_spark.models.training import build_model
from recsys_spark.models.validation import RatingValidation

MOST_EPOCHS, PEER_EPOCHS = 20, 4
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)


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

    @property
    def peer(self) -> str:
        """As in `keras_fit_adam_8192`."""
        return f"keras_fit_adam_{self.batch_size}"

    @property
    def settings(self) -> ModelSettings:
        """Of ours: the defaults of `mse`."""
        return ModelSettings(loss="mse", batch_size=self.batch_size)


@dataclass
class RatingCurve:
    """The error on held-out ratings after each epoch, and the seconds of training until then."""

    rmse: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def train(self, epoch: Callable[[Seconds], None], error: Callable[[], float], most: int, goal: float = 0.0) -> None:
        """So many epochs at most: until the goal is reached, or one gains nothing."""
        clock = Seconds()
        while len(self.rmse) < most:
            epoch(clock)
            self.rmse.append(error())
            self.seconds.append(sum(clock.each))
            if self.rmse[-1] <= goal or self.rmse[-1] > self.best:
                break

    @property
    def best(self) -> float:
        """The least error."""
        return min(self.rmse)

    @property
    def seconds_to_best(self) -> float:
        """Of training until the least error."""
        return round(self.seconds[int(np.argmin(self.rmse))], 2)


def run_pointwise(case: PointwiseCase, rounds: int) -> None:
    """Seconds a million samples."""
    pairs = case.pairs_of.pairs()
    ours, _ = build_model(select_trained(pairs, 1, 1), case.settings, 0, None)
    stock = plain_model(pairs.n_users, pairs.n_items)
    # All steps of an epoch of ours, because the shuffle that each begins with is work of them all.
    contenders = {PROJECT: (ours, -(-len(pairs) // case.batch_size)), case.peer: (stock, case.peer_steps)}
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
    unit, equal = "seconds a million samples", equal_loss(case)
    report("training_speed", case.name, seconds, unit=unit, samples_a_second=speed, equal_loss=equal)


def equal_loss(case: PointwiseCase) -> dict[str, Any]:
    """The least error on held-out ratings that the peer comes to, and the seconds until both are there."""
    pairs = case.pairs_of.rated()
    is_held_out = np.random.default_rng(1).random(len(pairs)) < 0.02
    train, held_out = some_pairs(pairs, ~is_held_out), some_pairs(pairs, is_held_out)
    part = select_trained(train, 1, 1)
    referee = RatingValidation(part, held_out)
    peers = {rate: curve_of_peer(case, part, referee, rate) for rate in LEARNING_RATES}
    rate, peer = min(peers.items(), key=lambda rated: rated[1].best)
    own = RatingCurve()
    model, batches = build_model(part, case.settings, 0, None)
    own.train(fit_epoch(model, batches), lambda: referee.rmse(model.rate_pairs), MOST_EPOCHS, peer.best)
    curves = {PROJECT: own, **{f"{case.peer} at {rate}": curve for rate, curve in peers.items()}}
    return {
        "is_reached": own.best <= peer.best,
        "seconds": {PROJECT: own.seconds_to_best, case.peer: peer.seconds_to_best},
        "learning_rate": rate,
        "rmse": {name: [round(error, 4) for error in curve.rmse] for name, curve in curves.items()},
        "rmse_of_mean": round(float(np.sqrt(np.mean((held_out.rating - part.pairs.rating.mean()) ** 2))), 4),
    }


def curve_of_peer(case: PointwiseCase, part: TrainedPart, referee: RatingValidation, rate: float) -> RatingCurve:
    """Epochs of Keras' own layers with a mean and biases."""
    pairs, curve = part.pairs, RatingCurve()
    model = plain_model(pairs.n_users, pairs.n_items, float(pairs.rating.mean()), rate)
    batches = PairBatches(pairs, case.batch_size, 0)

    def rated(users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(model.predict((users, items), batch_size=65_536, verbose=0), np.float32).ravel()

    curve.train(fit_epoch(model, batches), lambda: referee.rmse(rated), PEER_EPOCHS)
    return curve


def fit_epoch(model: keras.Model, batches: Any) -> Callable[[Seconds], None]:
    """What trains one more epoch."""

    def fit(clock: Seconds) -> None:
        model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[clock])

    return fit


def plain_model(n_users: int, n_items: int, mean: float | None = None, learning_rate: float = 0.001) -> keras.Model:
    """Two embeddings of 64 dimensions and their dot product, as in the tutorials; with biases when a mean is given."""
    sides = [keras.Input((), dtype="int32") for _ in range(2)]
    sizes = list(zip((n_users, n_items), sides, strict=True))
    vectors = [keras.layers.Embedding(rows, 64)(side) for rows, side in sizes]
    scores = keras.layers.Flatten()(keras.layers.Dot(axes=-1)(vectors))
    if mean is not None:
        biases = [keras.layers.Embedding(rows, 1, embeddings_initializer="zeros")(side) for rows, side in sizes]
        scores = keras.layers.Rescaling(1.0, offset=mean)(keras.layers.Add()([scores, *biases]))
    model = keras.Model(sides, scores)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="mse")
    return model
