"""Content embeddings: a denoising autoencoder of what items are like, whose middle is the embedding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.content_sections import ContentSettings
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.pooling import unit_rows
from recsys_spark.models.backend import keras, ops
from recsys_spark.models.checkpoints import EpochLog

_HELD_OUT, _LEAST_TO_HOLD_OUT = 0.05, 200
_APPLIED_AT_ONCE = 64

Tensor = Any
Batch = tuple[Floats, Floats, Floats]
"""Of `ContentBatches`: features, what they are to become, (b, terms + m), and weights, (b,)."""


@dataclass(frozen=True, eq=False)
class ItemContent:
    """Features of items: weighed `terms`, rows of length 1 or empty, and `numbers` (n_items, m) float32, 0 unknown."""

    terms: CsrRows
    numbers: Floats

    @property
    def n_items(self) -> int:
        """Items, with content or without."""
        return self.terms.n_rows

    @property
    def is_described(self) -> NDArray[np.bool_]:
        """Whether anything is known of an item, (n_items,)."""
        return np.asarray((np.diff(self.terms.indptr) > 0) | self.numbers.any(axis=1))

    def rows(self, items: NDArray[np.intp]) -> Floats:
        """All features of some items, (items, terms + m)."""
        rows = np.zeros((len(items), self.terms.n_columns + self.numbers.shape[1]), np.float32)
        starts, ends = self.terms.indptr[items], self.terms.indptr[items + 1]
        places = np.repeat(np.arange(len(items)), ends - starts)
        entries = np.concatenate([[0], np.cumsum(ends - starts)])
        entries = np.arange(entries[-1]) + np.repeat(starts - entries[:-1], ends - starts)
        rows[places, self.terms.indices[entries]] = self.terms.values[entries]
        rows[:, self.terms.n_columns :] = self.numbers[items]
        return rows


@dataclass(frozen=True, eq=False)
class ContentFit:
    """`vectors` (n_items, d) float32 of length 1; 0 for items of which nothing is known."""

    vectors: Floats
    history: tuple[EpochLog, ...]
    best_epoch: int


class ContentAutoencoder(keras.Model):  # type: ignore[misc]
    """h = tanh(W x + b) of features of which some are hidden; softmax(V h + c) for the terms, A h + a for the numbers.

    The denoising autoencoder of Vincent et al. (ICML 2008), with the multinomial likelihood for what is counted (Liang
    et al., WWW 2018): squared errors would be mostly about the thousands of terms an item has not.
    """

    def __init__(self, n_features: int, embedding_dim: int, dropout: float, seed: int) -> None:
        super().__init__(name="content_autoencoder")
        seeds = [keras.initializers.GlorotUniform(seed + place) for place in range(2)]
        self.hide = keras.layers.Dropout(dropout, seed=seed)
        self.encode = keras.layers.Dense(embedding_dim, "tanh", kernel_initializer=seeds[0], name="encode")
        self.decode = keras.layers.Dense(n_features, kernel_initializer=seeds[1], name="decode")

    def call(self, rows: Tensor, training: bool = False) -> Tensor:
        """Logits of the terms and the numbers, (b, terms + m), of features (b, terms + m)."""
        return self.decode(self.encode(self.hide(rows, training=training)))


class ReconstructionLoss(keras.losses.Loss):  # type: ignore[misc]
    """The negative log-likelihood of the first `n_terms` shares, and the squared errors of the numbers behind them."""

    def __init__(self, n_terms: int) -> None:
        super().__init__(name="reconstruction")
        self._n_terms = n_terms

    def call(self, wanted: Tensor, given: Tensor) -> Tensor:
        """Of each item, (b,)."""
        errors = ops.sum(ops.square(wanted[:, self._n_terms :] - given[:, self._n_terms :]), axis=-1)
        if self._n_terms == 0:
            return errors
        logarithms = ops.log_softmax(given[:, : self._n_terms], axis=-1)
        return errors - ops.sum(wanted[:, : self._n_terms] * logarithms, axis=-1)


class ContentBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of items, filled in as dense rows one batch at a time; the order depends on seed and epoch only.

    What is wanted of an item is its row of `wanted`, (items, w), or without it its own features, the terms as shares.
    The last batch is filled up by repeating its items at weight 0. Without a seed the order is that of the items.
    """

    def __init__(
        self,
        content: ItemContent,
        items: NDArray[np.intp],
        batch_size: int,
        seed: int | None,
        wanted: Floats | None = None,
    ) -> None:
        super().__init__(workers=1)
        self._content, self._items, self._wanted, self._seed, self._epoch = content, items, wanted, seed, 0
        self._size = min(batch_size, max(len(items), 1))
        self._shuffle()

    def _shuffle(self) -> None:
        self._order = np.arange(len(self._items))
        if self._seed is not None:
            np.random.default_rng([self._seed, 4, self._epoch]).shuffle(self._order)

    def __len__(self) -> int:
        return -(-len(self._items) // self._size)

    def __getitem__(self, batch: int) -> Batch:
        chosen = self._order[batch * self._size : (batch + 1) * self._size]
        weights = (np.arange(self._size) < len(chosen)).astype(np.float32)
        chosen = np.resize(chosen, self._size)
        rows = self._content.rows(self._items[chosen])
        if self._wanted is not None:
            return rows, self._wanted[chosen], weights
        n_terms, wanted = self._content.terms.n_columns, rows.copy()
        wanted[:, :n_terms] /= np.maximum(rows[:, :n_terms].sum(axis=1, keepdims=True), 1e-12)
        return rows, wanted, weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._shuffle()


def fit_content(
    content: ItemContent,
    settings: ContentSettings,
    seed: int,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> ContentFit:
    """Learn the items' vectors; the same arguments give the same bits on one type of processor.

    A twentieth of the items, where they are 200 or more, is not trained on: training stops after `settings.patience`
    epochs without a smaller loss of theirs, and keeps the best. Bytes: 8 a term of an item, 4 x (m + d) an item,
    32 x (terms + m) x d, 20 x (terms + m) an item of a batch.

    Raises:
        RecsysError: the loss is no longer a number.
    """
    described = np.flatnonzero(content.is_described)
    vectors = np.zeros((content.n_items, settings.embedding_dim), np.float32)
    if len(described) == 0:
        return ContentFit(vectors, (), 0)
    train, held_out = _parts(described, settings.max_trained_items, seed)
    n_terms = content.terms.n_columns
    model = ContentAutoencoder(n_terms + content.numbers.shape[1], settings.embedding_dim, settings.dropout, seed)
    model.compile(keras.optimizers.Adam(settings.learning_rate), loss=ReconstructionLoss(n_terms))
    log = _Log(on_epoch)
    callbacks: list[Any] = [log]
    if len(held_out):
        stopping = keras.callbacks.EarlyStopping(
            "val_loss", 0, settings.patience, mode="min", restore_best_weights=True
        )
        callbacks.append(stopping)
    # Without shuffle, because Keras would shuffle the batches once more, by the global generator.
    model.fit(
        ContentBatches(content, train, settings.batch_size, seed),
        epochs=settings.epochs,
        validation_data=ContentBatches(content, held_out, settings.batch_size, None) if len(held_out) else None,
        verbose=0,
        callbacks=callbacks,
        shuffle=False,
    )
    vectors[described] = apply_to_items(model.encode, content, described)
    best_epoch = stopping.best_epoch + 1 if len(held_out) else len(log.history)
    return ContentFit(unit_rows(vectors), tuple(log.history), best_epoch)


def apply_to_items(layer: Callable[[Floats], Tensor], content: ItemContent, items: NDArray[np.intp]) -> Floats:
    """What a layer makes of the features of some items, at least one, (items, w)."""
    parts = []
    for start in range(0, len(items), _APPLIED_AT_ONCE):
        # Of one shape, so that an item's bits do not depend on how many there are.
        rows = content.rows(np.resize(items[start : start + _APPLIED_AT_ONCE], _APPLIED_AT_ONCE))
        parts.append(ops.convert_to_numpy(layer(rows)))
    applied: Floats = np.concatenate(parts)[: len(items)]
    return applied


def _parts(described: NDArray[np.intp], most: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Items to train on and items held out, disjoint, drawn by the seed."""
    drawn = np.random.default_rng([seed, 5]).permutation(described)[:most]
    n_held_out = int(_HELD_OUT * len(drawn)) if len(drawn) >= _LEAST_TO_HOLD_OUT else 0
    return np.sort(drawn[n_held_out:]), np.sort(drawn[:n_held_out])


class _Log(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the loss of each epoch, for the caller; that of items held out where there are some."""

    def __init__(self, on_epoch: Callable[[EpochLog], None] | None) -> None:
        super().__init__()
        self.history: list[EpochLog] = []
        self._on_epoch, self._started = on_epoch, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        loss = float(logs.get("val_loss", logs["loss"]))
        if not np.isfinite(loss):
            raise RecsysError(f"training of content diverged in epoch {epoch + 1}: lower content.learning_rate")
        log = EpochLog(epoch + 1, loss, None, time.perf_counter() - self._started)
        self.history.append(log)
        if self._on_epoch is not None:
            self._on_epoch(log)
