"""Content embeddings: a denoising autoencoder of what items are like, whose middle is the embedding of neighbors."""

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
_DECODED_OF, _RECONSTRUCTION = 4, 0.2  # one item of so many, and what its likelihood counts
_NO_CANDIDATE = 1e9

Tensor = Any
Batch = tuple[Floats, Floats, Floats]
"""Of `ContentBatches`: halves of features, (b, 2, f), all of them, (b, f), and weights, (b,)."""


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
        places, entries = self._entries(items)
        rows[places, self.terms.indices[entries]] = self.terms.values[entries]
        rows[:, self.terms.n_columns :] = self.numbers[items]
        return rows

    def halves(self, items: NDArray[np.intp], random: np.random.Generator) -> Floats:
        """The features in two parts by the toss of a coin each, (items, 2, terms + m); both all, were one empty."""
        n_terms = self.terms.n_columns
        halves = np.zeros((len(items), 2, n_terms + self.numbers.shape[1]), np.float32)
        places, entries = self._entries(items)
        sides = random.integers(0, 2, len(places))
        halves[places, sides, self.terms.indices[entries]] = self.terms.values[entries]
        tossed = random.integers(0, 2, (len(items), 1, self.numbers.shape[1])) == np.array([[0], [1]])
        halves[:, :, n_terms:] = self.numbers[items][:, None] * tossed
        counts = np.bincount(2 * places + sides, minlength=2 * len(items)).reshape(-1, 2)
        is_whole = ((counts == 0) & ~halves[:, :, n_terms:].any(axis=2)).any(axis=1)
        halves[is_whole] = self.rows(items[is_whole])[:, None]
        return halves

    def _entries(self, items: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Of all terms of some items, which of the items it is, and where in `terms` it stands."""
        starts, ends = self.terms.indptr[items], self.terms.indptr[items + 1]
        places = np.repeat(np.arange(len(items)), ends - starts)
        firsts = np.cumsum(ends - starts) - (ends - starts)
        return places, np.arange(len(places)) + np.repeat(starts - firsts, ends - starts)


@dataclass(frozen=True, eq=False)
class ContentFit:
    """`vectors` (n_items, d) float32 of length 1; 0 for items of which nothing is known."""

    vectors: Floats
    history: tuple[EpochLog, ...]
    best_epoch: int


class ContentAutoencoder(keras.Model):  # type: ignore[misc]
    """h = tanh(W x + b) of a half x of an item's features; softmax(V h + c) for all its terms, A h + a for numbers.

    A denoising autoencoder (Vincent et al., ICML 2008), with the multinomial likelihood for what is counted (Liang et
    al., WWW 2018): squared errors would be mostly about the thousands of terms an item has not. It is trained for
    neighbors, too: of all items of a batch, the h of a half is to be the nearest to that of the other half of its own
    item, by the softmax of cosines over `temperature` (Chen et al., "SimCLR", ICML 2020; cut in halves instead of
    changed, as there is no telling what change of words leaves an item what it is). The likelihood is taken on a
    quarter of a batch: it is dear, and counts little (docs/decisions/0022).
    """

    def __init__(self, n_terms: int, n_numbers: int, embedding_dim: int, temperature: float, seed: int) -> None:
        super().__init__(name="content_autoencoder")
        # Random directions of length one: cosines are about those of the features to begin with.
        start = keras.initializers.RandomNormal(0.0, embedding_dim**-0.5, seed=seed)
        self.encode = keras.layers.Dense(embedding_dim, "tanh", kernel_initializer=start, name="encode")
        start = keras.initializers.GlorotUniform(seed + 1)
        self.decode = keras.layers.Dense(n_terms + n_numbers, kernel_initializer=start, name="decode")
        self._n_terms, self._temperature = n_terms, temperature

    def call(self, halves: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Embeddings, (b, 2, d), of both halves, (b, 2, terms + m), and what a quarter of the first ones decode to."""
        embeddings = self.encode(halves)
        return embeddings, self.decode(embeddings[: -(-ops.shape(halves)[0] // _DECODED_OF), 0])

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Of a batch of halves x, of items with features y that become `y_pred`; those of weight 0 do not count."""
        embeddings, decoded = y_pred
        n_decoded = ops.shape(decoded)[0]
        errors, weights = reconstruction_errors(y[:n_decoded], decoded, self._n_terms), sample_weight[:n_decoded]
        reconstruction = ops.sum(weights * errors) / ops.sum(weights)
        confusion = confusion_of_halves(embeddings, sample_weight, self._temperature)
        return confusion + _RECONSTRUCTION * reconstruction


def reconstruction_errors(rows: Tensor, given: Tensor, n_terms: int) -> Tensor:
    """The negative log-likelihood of the shares of the first `n_terms`, and squared errors of the numbers, (b,)."""
    errors = ops.sum(ops.square(rows[:, n_terms:] - given[:, n_terms:]), axis=-1)
    if n_terms == 0:
        return errors
    shares = rows[:, :n_terms] / ops.maximum(ops.sum(rows[:, :n_terms], axis=-1, keepdims=True), 1e-12)
    return errors - ops.sum(shares * ops.log_softmax(given[:, :n_terms], axis=-1), axis=-1)


def confusion_of_halves(embeddings: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Mean negative logarithm of a half's share of its own item, of those of weight 1, both ways; (b, 2, d), (b,)."""
    units = embeddings / ops.sqrt(ops.maximum(ops.sum(ops.square(embeddings), axis=-1, keepdims=True), 1e-12))
    scores = ops.matmul(units[:, 0], ops.transpose(units[:, 1])) / temperature
    others = (1.0 - weights) * _NO_CANDIDATE
    shares = ops.log_softmax(scores - others[None], axis=1) + ops.log_softmax(scores - others[:, None], axis=0)
    return -0.5 * ops.sum(weights * ops.diagonal(shares)) / ops.sum(weights)


class ContentBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of items, filled in as dense rows one batch at a time; the order depends on seed and epoch only.

    What is wanted of an item are its features, of two halves of them. The last batch is filled up by repeating its
    items at weight 0. Without a seed each epoch is the same, in the order of the items.
    """

    def __init__(self, content: ItemContent, items: NDArray[np.intp], batch_size: int, seed: int | None) -> None:
        super().__init__(workers=1)
        self._content, self._items, self._seed, self._epoch = content, items, seed, 0
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
        random = np.random.default_rng([self._seed or 0, 9, self._epoch, batch])
        return self._content.halves(self._items[chosen], random), rows, weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        if self._seed is not None:
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
    epochs without a smaller loss of theirs, and keeps the best: this is mostly about whether they are found by half of
    what they are like. Bytes: 8 a term of an item, 4 x (m + d) an item, 64 x (terms + m) x d, 56 x (terms + m) an item
    of a batch.

    Raises:
        RecsysError: the loss is no longer a number.
    """
    described = np.flatnonzero(content.is_described)
    vectors = np.zeros((content.n_items, settings.embedding_dim), np.float32)
    if len(described) == 0:
        return ContentFit(vectors, (), 0)
    train, held_out = _parts(described, settings.max_trained_items, seed)
    n_terms = content.terms.n_columns
    n_numbers = content.numbers.shape[1]
    model = ContentAutoencoder(n_terms, n_numbers, settings.embedding_dim, settings.temperature, seed)
    model.compile(keras.optimizers.Adam(settings.learning_rate))
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
