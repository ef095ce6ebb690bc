"""A learned similarity of users: how much of a user's behavior each of his nearest users predicts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.neighbor_scoring import NeighborMode
from recsys_spark.kernels.similarity import embed_behavior
from recsys_spark.model_sections import NeighborhoodSettings
from recsys_spark.models.backend import keras, ops, steps
from recsys_spark.models.checkpoints import EpochLog
from recsys_spark.models.embedding import as_array, of_length_one
from recsys_spark.models.interactions import TrainedPart, TrainingPairs
from recsys_spark.models.neighborhood_validation import NeighborhoodReferee
from recsys_spark.models.optimizers import RowwiseAdagrad
from recsys_spark.models.reconstruction import Inputs, NearestUsers, ReconstructionBatches, rows_of_pairs
from recsys_spark.models.tables import INIT_STD
from recsys_spark.models.validation import K, RankingValidation
from recsys_spark.sections import NeighborSettings

Tensor = Any
SMOOTHING = 0.05
"""The share of a prediction that is the same for all items, so that one no neighbor has costs no infinite loss."""

_SMALLEST = 1e-12
_MONITOR, _LEAST_GAIN = f"val_ndcg@{K}", 3e-4  # the gain of NDCG as in `training`


@dataclass(frozen=True, eq=False)
class NeighborhoodFit:
    """`item_vectors` (n_items, d) float32, by which `embed_behavior` embeds any user; 0 for items nobody has.

    `best_epoch`, from 1, is the one they are of. 0: there was nothing to learn, and all vectors are 0.
    """

    item_vectors: Floats
    history: tuple[EpochLog, ...]
    best_epoch: int


class NeighborhoodModel(keras.Model):  # type: ignore[misc]
    """Predicts item i for user u by sum_v a_uv r_vi over his nearest users v, as a share of that of all items.

    a_uv = s_uv exp(e_u . e_v / temperature): s_uv is the given similarity, and e_u the sum of the vectors of the user's
    items, of length one; users have no weights of their own. Items the user is embedded by are left out. The neighbors'
    e_v stay for an epoch, as `keys`, because they are embedded by all of their items: learning by the users' side
    alone came as far (MovieLens-1M), and a step costs what the batch holds.
    """

    def __init__(self, rows: CsrRows, embedding_dim: int, temperature: float) -> None:
        super().__init__(name="neighborhood_model")
        self._rows, self._temperature = rows, temperature
        self.items = self.add_weight(shape=(rows.n_columns, embedding_dim), initializer="zeros", name="items")
        self.keys = self.add_weight(shape=(rows.n_rows, embedding_dim), trainable=False, name="keys")
        self.built = True

    def call(self, inputs: Inputs) -> Tensor:
        """The predicted shares (t,) of the items to reconstruct; smoothed, they add up to 1 over a user's new items."""
        inputs = Inputs(*inputs)
        weights = self.attend(inputs)
        totals = ops.sum(weights * inputs.votes, axis=1)
        votes = ops.sum(ops.take(weights, inputs.target_rows, axis=0) * inputs.ratings, axis=1)
        shares = votes / ops.maximum(ops.take(totals, inputs.target_rows), _SMALLEST)
        return (1.0 - SMOOTHING) * shares + SMOOTHING / self._rows.n_columns

    def attend(self, inputs: Inputs) -> Tensor:
        """The weights a_uv (b, k), those of a user on a scale of his own."""
        vectors = steps.take_rows(self.items, inputs.pair_items) * inputs.pair_weights[:, None]
        sums = ops.segment_sum(vectors, inputs.pair_rows, ops.shape(inputs.neighbors)[0])
        users = of_length_one(sums)
        cosines = ops.sum(users[:, None, :] * ops.take(self.keys, inputs.neighbors, axis=0), axis=2)
        cosines = ops.where(inputs.similarities > 0, cosines, -1.0)
        # On the scale of the nearest in taste, so that a low temperature does not make all of them 0.
        highest = ops.stop_gradient(ops.max(cosines, axis=1, keepdims=True))
        return inputs.similarities * ops.exp((cosines - highest) / self._temperature)

    def compile(self, learning_rate: float) -> None:
        """Make it ready for `fit`."""
        super().compile(optimizer=RowwiseAdagrad(learning_rate), jit_compile=steps.IS_COMPILED)
        self._loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        """The mean loss of the epoch."""
        return [self._loss]

    def train_step(self, batch: tuple[Inputs, Tensor]) -> dict[str, Tensor]:
        """One compiled step on a batch of `ReconstructionBatches`: the negative logarithm of the shares, a user."""
        inputs, weight = batch

        def compute() -> tuple[Tensor, Tensor]:
            losses = -ops.log(self(inputs))
            return ops.sum(losses * weight), losses

        losses, gradients = steps.differentiate(compute, [self.items])
        self.optimizer.apply(gradients, [self.items])
        self._loss.update_state(losses, sample_weight=weight)
        return {"loss": self._loss.result()}

    def renew_keys(self) -> None:
        """Embed the neighbors by the items' vectors of now."""
        self.keys.assign(embed_behavior(self._rows, as_array(self.items)))


def fit_neighborhood(
    pairs: TrainingPairs,
    settings: NeighborhoodSettings,
    search: NeighborSettings,
    seed: int,
    *,
    validation: TrainingPairs | None = None,
    epochs: int | None = None,
    mode: NeighborMode = "sum",
    shrinkage: float = 0.0,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> NeighborhoodFit:
    """Learn the items' vectors; the same arguments give the same bits on one type of processor, in any order of pairs.

    With `validation` (indexed like `pairs`) and no `epochs`, training stops after `settings.patience` epochs without a
    better NDCG@10 of lists made with `mode` and `shrinkage`, and keeps the best epoch; without, it runs `epochs` or
    else `settings.epochs`. The users of `pairs` are each other's neighbors: time grows with the square of their number.
    Bytes: 60 a pair, 40 x k + 8 x d a user, 12 x d an item; in a batch of 256 users 8 x k a pair, 4 x k x d a user.

    Raises:
        RecsysError: the loss is no longer a number.
        ValueError: `validation` does not fit `pairs`.
    """
    rows = rows_of_pairs(pairs)
    nearest = NearestUsers(rows, search)
    referee = None if validation is None else _referee(pairs, validation, nearest, settings, seed, (mode, shrinkage))
    batches = ReconstructionBatches(rows, nearest, seed)
    if len(batches) == 0:
        return NeighborhoodFit(np.zeros((pairs.n_items, settings.embedding_dim), np.float32), (), 0)
    passes = _Passes(referee, on_epoch)
    stopping = keras.callbacks.EarlyStopping(
        _MONITOR, _LEAST_GAIN, settings.patience, mode="max", restore_best_weights=True
    )
    callbacks = [passes] if referee is None or epochs is not None else [passes, stopping]
    model = _start(pairs, rows, settings, seed)
    # Without shuffle, because Keras would shuffle the batches once more, by the global generator.
    model.fit(batches, epochs=epochs or settings.epochs, verbose=0, callbacks=callbacks, shuffle=False)
    best_epoch = stopping.best_epoch + 1 if stopping in callbacks else len(passes.history)
    return NeighborhoodFit(as_array(model.items), tuple(passes.history), best_epoch)


def _referee(
    pairs: TrainingPairs,
    validation: TrainingPairs,
    nearest: NearestUsers,
    settings: NeighborhoodSettings,
    seed: int,
    scoring: tuple[NeighborMode, float],
) -> NeighborhoodReferee | None:
    if (validation.n_users, validation.n_items) != (pairs.n_users, pairs.n_items):
        raise ValueError(
            f"validation has {validation.n_users} users and {validation.n_items} items, "
            f"the training pairs have {pairs.n_users} and {pairs.n_items}"
        )
    part = TrainedPart(pairs, pairs, np.arange(pairs.n_users), np.arange(pairs.n_items))
    ranking = RankingValidation(part, validation, settings.validation_users, seed)
    return NeighborhoodReferee(ranking, nearest, settings.temperature, *scoring) if len(ranking.users) else None


def _start(pairs: TrainingPairs, rows: CsrRows, settings: NeighborhoodSettings, seed: int) -> NeighborhoodModel:
    """Random vectors: cosines are those of the behavior, nearly."""
    model = NeighborhoodModel(rows, settings.embedding_dim, settings.temperature)
    model.compile(settings.learning_rate)
    vectors = np.random.default_rng([seed, 1]).standard_normal(model.items.shape, np.float32) * np.float32(INIT_STD)
    vectors[pairs.item_counts() == 0] = 0
    model.items.assign(vectors)
    return model


class _Passes(keras.callbacks.Callback):  # type: ignore[misc]
    """Renews the keys for each epoch and measures it, for early stopping (which stands behind it) and the caller."""

    def __init__(self, referee: NeighborhoodReferee | None, on_epoch: Callable[[EpochLog], None] | None) -> None:
        super().__init__()
        self.history: list[EpochLog] = []
        self._referee, self._on_epoch, self._started = referee, on_epoch, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.perf_counter()
        self.model.renew_keys()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if not np.isfinite(logs["loss"]):
            raise RecsysError(f"training diverged in epoch {epoch + 1}: lower neighborhood.learning_rate")
        ndcg = None
        if self._referee is not None:
            ndcg = logs[_MONITOR] = self._referee.ndcg(as_array(self.model.items))
        log = EpochLog(epoch + 1, float(logs["loss"]), ndcg, time.perf_counter() - self._started)
        self.history.append(log)
        if self._on_epoch is not None:
            self._on_epoch(log)
