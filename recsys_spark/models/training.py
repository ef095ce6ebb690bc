"""Training of the embedding model on the driver."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.least_squares import WholeDataLoss
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.alternating import AlternatingModel, balanced_weight
from recsys_spark.models.backend import BACKEND, keras
from recsys_spark.models.batches import PairBatches, StepGroups, UserBatches
from recsys_spark.models.checkpoints import Checkpointer, Checkpoints, EpochLog
from recsys_spark.models.closed_form import StepNumbers
from recsys_spark.models.embedding import EmbeddingModel, score_of_rating
from recsys_spark.models.embeddings import Embeddings, untrained_embeddings
from recsys_spark.models.features import ItemFeatures
from recsys_spark.models.interactions import TrainedPart, TrainingPairs, select_trained
from recsys_spark.models.neumf import NeumfModel, random_layer
from recsys_spark.models.objectives import build_objective
from recsys_spark.models.optimizers import RowwiseAdagrad
from recsys_spark.models.spectral import SpectralModel
from recsys_spark.models.tables import Start, collect_embeddings, start_tables
from recsys_spark.models.two_tower import TwoTowerModel
from recsys_spark.models.validation import RankingValidation, RatingValidation

_NDCG, _RMSE = "val_ndcg@10", "val_rmse"
_START_STEPS = 4  # of subspace iteration; a start need not be exact
_LEAST_GAIN = 3e-4  # for less, tens of passes are not worth their time


@dataclass(frozen=True, eq=False)
class Fit:
    """A trained model. `best_epoch`, from 1, is the one the embeddings are of.

    `popularity_ndcg` is NDCG@10 of the most popular items for the users whose validation NDCG is in `history`.
    `whole_data_loss` is what `ials` minimised: with the items' vectors it gives those of any user.
    """

    embeddings: Embeddings
    history: tuple[EpochLog, ...]
    best_epoch: int
    popularity_ndcg: float | None
    whole_data_loss: WholeDataLoss | None = None


def fit_embeddings(
    pairs: TrainingPairs,
    settings: ModelSettings,
    seed: int,
    *,
    validation: TrainingPairs | None = None,
    epochs: int | None = None,
    warm_start: Embeddings | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
    checkpoints: Checkpoints | None = None,
    log_folder: Path | None = None,
    item_features: ItemFeatures | None = None,
) -> Fit:
    """Train embeddings; the same arguments give the same bits on one type of processor, in any order of `pairs`.

    With `validation` (indexed like `pairs`) and no `epochs`, training stops after `settings.patience` epochs without
    a validation NDCG@10 (of losses that predict ratings: their error) that is better by .0003, and keeps the best
    epoch; without, it runs `epochs` or else `settings.epochs`. A validation slice that holds no trained user counts as
    none. `warm_start` holds the embeddings of an earlier fit with the same loss, similarity and latent size (not of
    `neumf`); users and items it does not know start afresh. With `checkpoints`, training goes on from the newest one of
    the same fit, to the same bits as without a break; `on_epoch` hears of later epochs. TensorBoard's logs go to
    `log_folder`. `item_features`, (items,), are those of `settings.item_features`.

    Raises:
        NothingToTrainError: no pairs are left after `min_*_interactions`.
        RecsysError: the loss is no longer a number.
        ValueError: `warm_start` or `validation` does not fit `pairs` and `settings`.
    """
    part = select_trained(pairs, settings.min_user_interactions, settings.min_item_interactions)
    referee = _referee(part, validation, settings, seed)
    ratings = RatingValidation(part, validation) if validation is not None and settings.predicts_ratings else None
    epoch_logger, stopping = _EpochLogger(referee, ratings if ratings and ratings.pairs else None, on_epoch), None
    callbacks: list[Any] = [epoch_logger]
    if referee is not None and epochs is None:
        monitor = (_RMSE, "min") if ratings and ratings.pairs else (_NDCG, "max")
        stopping = keras.callbacks.EarlyStopping(
            monitor[0], _LEAST_GAIN, settings.patience, mode=monitor[1], restore_best_weights=True
        )
        callbacks.append(stopping)
    if log_folder is not None:
        callbacks.append(keras.callbacks.TensorBoard(log_folder, write_graph=False))
    most, first = epochs or settings.epochs, 0
    if checkpoints is not None:
        known = settings.model_dump(mode="json", exclude={"tensorboard"})
        features = None if item_features is None else item_features.lists
        purpose = [BACKEND, known, seed, most, *(_digest(each) for each in (pairs, validation, warm_start, features))]
        checkpointer = Checkpointer(checkpoints, purpose, epoch_logger.history, stopping)
        callbacks.append(checkpointer)
        first = checkpointer.take_up()
    model, batches = build_model(part, settings, seed, warm_start, first, item_features)
    # Without shuffle, because Keras would shuffle the batches once more, by the global generator.
    model.fit(batches, initial_epoch=first, epochs=most, verbose=0, callbacks=callbacks, shuffle=False)
    best_epoch = len(epoch_logger.history) if stopping is None else stopping.best_epoch + 1
    return Fit(
        collect_embeddings(model, part),
        tuple(epoch_logger.history),
        best_epoch,
        referee.popularity_ndcg() if referee else None,
        model.minimised if isinstance(model, AlternatingModel) else None,
    )


def _digest(arrays: TrainingPairs | Embeddings | IndexLists | None) -> str:
    """SHA-256 of all arrays of what a training is given."""
    digest = hashlib.sha256()
    for field in fields(arrays) if arrays is not None else ():
        value = getattr(arrays, field.name)
        if isinstance(value, Path):  # where arrays are made is not what is trained
            continue
        for part in value if isinstance(value, tuple) else (value,):
            array = np.ascontiguousarray(0 if part is None else part)
            digest.update(f"{field.name} {array.shape} ".encode())
            digest.update(array.data)
    return digest.hexdigest()


def untrained_fit(pairs: TrainingPairs, settings: ModelSettings) -> Fit:
    """A fit that knows popularity alone, for pairs of which none can be trained; its epochs are those asked for."""
    embeddings = untrained_embeddings(pairs.n_users, settings.embedding_dim, pairs.item_counts())
    loss = WholeDataLoss(1.0, settings.l2_penalty) if settings.loss == "ials" else None
    return Fit(embeddings, (), settings.epochs, None, loss)


def build_model(
    part: TrainedPart,
    settings: ModelSettings,
    seed: int,
    warm_start: Embeddings | None,
    first_epoch: int = 0,
    item_features: ItemFeatures | None = None,
) -> tuple[EmbeddingModel, keras.utils.PyDataset]:
    """Compile a model of the trained part, at its start, and the batches it learns from, of `first_epoch` on."""
    pairs, l2 = part.pairs, settings.l2_penalty
    sizes = pairs.n_users, pairs.n_items, settings.embedding_dim
    if settings.loss == "spectral":
        return _spectral_model(part, settings, seed, warm_start), StepNumbers(1)
    start = _spectral_start(part, settings, seed) if settings.starts_from_spectrum and warm_start is None else None
    if settings.loss == "ials":
        solver = AlternatingModel(*sizes)
        solver.compile(WholeDataLoss(settings.unobserved_weight or balanced_weight(pairs), l2), pairs)
        start_tables(solver, part, seed, warm_start, start)
        return solver, StepNumbers(2)
    model = _embedding_model(part, settings, seed, item_features)
    optimizer = RowwiseAdagrad(settings.learning_rate)
    model.compile(build_objective(pairs, settings, seed), optimizer, settings.product_dtype)
    if settings.predicts_ratings:
        model.is_logistic = settings.is_logistic
        model.offset.assign(score_of_rating(float(pairs.rating.mean()), settings.is_logistic))
    start_tables(model, part, seed, warm_start, start)
    batches = UserBatches if settings.is_trained_by_user else PairBatches
    groups = StepGroups(batches(pairs, settings.pairs_in_batch, seed, first_epoch))
    model.steps_at_once = groups.size
    return model, groups


def _embedding_model(
    part: TrainedPart, settings: ModelSettings, seed: int, item_features: ItemFeatures | None
) -> EmbeddingModel:
    pairs = part.pairs
    sizes = pairs.n_users, pairs.n_items, settings.embedding_dim
    if settings.architecture == "dot":
        return EmbeddingModel(*sizes, settings.is_cosine)
    if settings.architecture == "two_tower":
        features = None if item_features is None else item_features.select(part.items)
        return TwoTowerModel(pairs, sizes[2], settings.is_cosine, settings.own_embedding, seed, features)
    model = NeumfModel(*sizes, settings.hidden_units)
    model.hidden = random_layer(settings.hidden_units, settings.embedding_dim, seed)
    return model


def _spectral_model(
    part: TrainedPart, settings: ModelSettings, seed: int, warm_start: Embeddings | None
) -> SpectralModel:
    model = SpectralModel(part.pairs.n_users, part.pairs.n_items, settings.embedding_dim)
    model.compile(part.pairs)
    start_tables(model, part, seed, warm_start)
    return model


def _spectral_start(part: TrainedPart, settings: ModelSettings, seed: int) -> Start | None:
    if settings.embedding_dim >= min(part.pairs.n_users, part.pairs.n_items):
        return None
    model = _spectral_model(part, settings, seed, None)
    model.fit(StepNumbers(1), epochs=_START_STEPS, verbose=0, shuffle=False)
    return Start(model.users.vectors(), model.items.vectors())


def _referee(
    part: TrainedPart, validation: TrainingPairs | None, settings: ModelSettings, seed: int
) -> RankingValidation | None:
    if validation is None:
        return None
    pairs = part.all_pairs
    if (validation.n_users, validation.n_items) != (pairs.n_users, pairs.n_items):
        raise ValueError(
            f"validation has {validation.n_users} users and {validation.n_items} items, "
            f"the training pairs have {pairs.n_users} and {pairs.n_items}"
        )
    referee = RankingValidation(part, validation, settings.validation_users, seed)
    return referee if len(referee.users) else None


class _EpochLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures each epoch, for early stopping (which must stand behind it) and for the caller."""

    def __init__(
        self,
        referee: RankingValidation | None,
        ratings: RatingValidation | None,
        on_epoch: Callable[[EpochLog], None] | None,
    ) -> None:
        super().__init__()
        self.history: list[EpochLog] = []
        self._referee, self._ratings = referee, ratings
        self._on_epoch = on_epoch
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if not np.isfinite(logs["loss"]):
            raise RecsysError(f"training diverged: loss {logs['loss']} in epoch {epoch + 1}; {self.model.advice}")
        ndcg = rmse = None
        if self._referee is not None:
            ndcg = logs[_NDCG] = self._referee.ndcg(self.model.best_items)
        if self._ratings is not None:
            rmse = logs[_RMSE] = self._ratings.rmse(self.model.rate_pairs)
        log = EpochLog(epoch + 1, float(logs["loss"]), ndcg, time.perf_counter() - self._started, rmse)
        self.history.append(log)
        if self._on_epoch is not None:
            self._on_epoch(log)
