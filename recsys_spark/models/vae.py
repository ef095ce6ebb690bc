"""A variational autoencoder of what users have: an encoder of histories, and vectors of items that it decodes to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.encoder import NORM_EPSILON, Encoder, encode_rows
from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import VaeSettings
from recsys_spark.models.backend import keras, ops
from recsys_spark.models.checkpoints import EpochLog
from recsys_spark.models.embedding import as_array
from recsys_spark.models.interactions import TrainedPart, TrainingPairs
from recsys_spark.models.reconstruction import rows_of_pairs
from recsys_spark.models.validation import K, RankingValidation

LAYERS = 3
_MONITOR, _LEAST_GAIN = "val_ndcg", 3e-4  # the gain of NDCG as in `training`
_PRIOR, _WIDE_LOG_VARIANCE = (0.15, 0.75, 0.1), 10.0  # as in RecVAE
_AVERAGED_EPOCHS = 8  # that averages of weights are of: single steps are noisy by more than epochs differ
_LARGEST_LOG_VARIANCE = 10.0  # of the first steps, when it may be anything

Tensor = Any
Batch = tuple[Floats, Floats, Floats]
"""Of `HistoryBatches`: rows of 0 and 1, (b, items), twice, because Keras wants a target, and weights, (b,)."""


@dataclass(frozen=True, eq=False)
class VaeFit:
    """`encoder`, of the items of all pairs, and `item_vectors` (n_items, d + 1) float32, the last of them the bias.

    Scores are their products with what `encode_rows` gives. `best_epoch`, from 1, is the one they are of.
    """

    encoder: Encoder
    item_vectors: Floats
    history: tuple[EpochLog, ...]
    best_epoch: int


class HistoryEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Layers that see all before them, and of the last one the mean and the logarithm of the variance."""

    def __init__(self, settings: VaeSettings, n_items: int, seed: int, is_trained: bool = True) -> None:
        super().__init__()
        width, dims = settings.hidden_units, settings.embedding_dim
        self.hidden = [_dense(width, seed + place) for place in range(LAYERS)]
        self.norms = [keras.layers.LayerNormalization(epsilon=NORM_EPSILON) for _ in range(LAYERS)]
        self.mean, self.log_variance = _dense(dims, seed + LAYERS), _dense(dims, seed + LAYERS + 1)
        for place, layer in enumerate(self.hidden):
            layer.build((None, width if place else n_items))
        for layer in (*self.norms, self.mean, self.log_variance):
            layer.build((None, width))
        self.built = True
        self.trainable = is_trained  # after the layers were made, which it is passed on to

    def call(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of variances, (b, d) each, of rows of length one, or parts of such, (b, items)."""
        layer, sums = units, 0.0
        for hidden, norm in zip(self.hidden, self.norms, strict=True):
            layer = norm(keras.activations.silu(hidden(layer) + sums))
            sums = sums + layer
        return self.mean(layer), ops.minimum(self.log_variance(layer), _LARGEST_LOG_VARIANCE)


class HistoryAutoencoder(keras.Model):  # type: ignore[misc]
    """log softmax_i(z.v_i + c_i), added up over a user's items; z ~ N(m(x), s(x)^2) by layers from the row x of them.

    The multinomial likelihood of Liang et al., "Mult-VAE", WWW 2018, with what Shenbin et al., "RecVAE", WSDM 2020,
    changed of it: the layers, a divergence that counts in proportion to the items of the user, from a prior that is
    mostly what the encoder said of the user an epoch before (`earlier`), and an encoder that learns from a part of the
    items (`dropout`) while the decoder learns from all. Both learn in one step here, each as if the other stood still,
    where RecVAE has passes by turns: as good, in a third of the time (docs/decisions/0032).
    """

    def __init__(self, n_items: int, settings: VaeSettings, seed: int) -> None:
        super().__init__(name="history_autoencoder")
        first = 100 * seed
        self.encoder = HistoryEncoder(settings, n_items, first)
        self.earlier = HistoryEncoder(settings, n_items, first, is_trained=False)
        self.decode = _dense(n_items, first + 10)
        self.decode.build((None, settings.embedding_dim))
        self._dropout = keras.layers.Dropout(settings.dropout, seed=first + 11)
        self._noise = keras.random.SeedGenerator(first + 12)
        self._kl_weight = settings.kl_weight
        self.built = True

    def call(self, rows: Tensor, training: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of shares by a part of each row and by all of it, (b, items), and the divergence, (b,)."""
        counts = ops.maximum(ops.sum(rows, axis=-1, keepdims=True), 1.0)
        units = rows * ops.rsqrt(counts)
        posterior = self.encoder(self._dropout(units, training=training))
        drawn = self._draw(*posterior)
        divergence = divergence_of(drawn, posterior, self.earlier(units))
        kernel, bias = ops.stop_gradient(self.decode.kernel), ops.stop_gradient(self.decode.bias)
        by_part = ops.log_softmax(ops.matmul(drawn, kernel) + bias)
        by_all = ops.log_softmax(self.decode(ops.stop_gradient(self._draw(*self.encoder(units)))))
        return by_part, by_all, self._kl_weight * counts[:, 0] * divergence

    def _draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        return mean + keras.random.normal(ops.shape(mean), seed=self._noise) * ops.exp(0.5 * log_variance)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Of a batch of rows y: the mean over their items, of the users of weight 1."""
        by_part, by_all, divergence = y_pred
        losses = divergence - ops.sum(y * (by_part + by_all), axis=-1)
        return ops.sum(sample_weight * losses) / ops.sum(sample_weight[:, None] * y)


def divergence_of(drawn: Tensor, posterior: tuple[Tensor, Tensor], earlier: tuple[Tensor, Tensor]) -> Tensor:
    """Log q(z) - log p(z) of what is drawn, (b, d), added up to (b,): an estimate of the divergence of q from p.

    p is, in each dimension, a mixture of N(0, 1), the earlier posterior and a wide normal distribution, by `_PRIOR`.
    """
    standard, wide = (0.0, 0.0), (0.0, _WIDE_LOG_VARIANCE)
    parts = [
        math.log(share) + _log_density(drawn, *each)
        for share, each in zip(_PRIOR, (standard, earlier, wide), strict=True)
    ]
    return ops.sum(_log_density(drawn, *posterior) - ops.logsumexp(ops.stack(parts), axis=0), axis=-1)


def _log_density(drawn: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -0.5 * (log_variance + math.log(2 * math.pi) + ops.square(drawn - mean) * ops.exp(-log_variance))


def _dense(units: int, seed: int) -> Any:
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed))


class HistoryBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Users' rows as dense ones, a batch at a time, in an order that depends on seed and epoch only.

    The last batch is filled up by repeating its users at weight 0.
    """

    def __init__(self, rows: CsrRows, batch_users: int, seed: int) -> None:
        super().__init__(workers=1)
        self._rows, self._seed, self._epoch = rows, seed, 0
        self._size = min(batch_users, rows.n_rows)
        self._shuffle()

    def _shuffle(self) -> None:
        self._order = np.random.default_rng([self._seed, 12, self._epoch]).permutation(self._rows.n_rows)

    def __len__(self) -> int:
        return -(-self._rows.n_rows // self._size)

    def __getitem__(self, batch: int) -> Batch:
        chosen = self._order[batch * self._size : (batch + 1) * self._size]
        weights = (np.arange(self._size) < len(chosen)).astype(np.float32)
        some = self._rows.take_rows(np.resize(chosen, self._size))
        rows = np.zeros((self._size, self._rows.n_columns), np.float32)
        rows[np.repeat(np.arange(self._size), np.diff(some.indptr)), some.indices] = 1.0
        return rows, rows, weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._shuffle()


def fit_vae(
    part: TrainedPart,
    settings: VaeSettings,
    seed: int,
    *,
    validation: TrainingPairs | None = None,
    epochs: int | None = None,
    k: int = K,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> VaeFit:
    """Learn the encoder and the items' vectors; the same arguments give the same bits on one type of processor.

    With `validation` (indexed like `part.all_pairs`) and no `epochs`, training stops after `settings.patience` epochs
    without a better NDCG at `k`, and keeps the best epoch; without, it runs `epochs` or else `settings.epochs`. Longer
    lists want longer training. Time of an epoch grows with users x items. Bytes: 160 MB, 20 x (h + d) an item,
    40 x items a user of a batch.

    Raises:
        RecsysError: the loss is no longer a number.
    """
    rows = rows_of_pairs(part.pairs)
    referee = None if validation is None else RankingValidation(part, validation, settings.validation_users, seed, k)
    epoch_log, stopping = _Epochs(rows, referee if referee is not None and len(referee.users) else None, on_epoch), None
    # The averages stand in the model at the end of an epoch, when it is measured and kept.
    callbacks: list[Any] = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), epoch_log]
    if epoch_log.referee is not None and epochs is None:
        stopping = keras.callbacks.EarlyStopping(
            _MONITOR, _LEAST_GAIN, settings.patience, mode="max", restore_best_weights=True
        )
        callbacks.append(stopping)
    model = HistoryAutoencoder(rows.n_columns, settings, seed)
    batches = HistoryBatches(rows, settings.batch_users, seed)
    momentum = 1 - 1 / (1 + _AVERAGED_EPOCHS * len(batches))
    model.compile(keras.optimizers.Adam(settings.learning_rate, use_ema=True, ema_momentum=momentum))
    # Without shuffle, because Keras would shuffle the batches once more, by the global generator.
    model.fit(
        batches,
        epochs=epochs or settings.epochs,
        verbose=0,
        callbacks=callbacks,
        shuffle=False,
    )
    best_epoch = len(epoch_log.history) if stopping is None else stopping.best_epoch + 1
    encoder, vectors = encoder_of(model.encoder), _item_vectors(model)
    is_known = np.zeros(part.all_pairs.n_items, bool)
    is_known[part.items] = True
    inputs = _spread(encoder.inputs, part)
    return VaeFit(
        encoder._replace(inputs=inputs, is_known=is_known), _spread(vectors, part), tuple(epoch_log.history), best_epoch
    )


def untrained_vae(n_items: int, settings: VaeSettings) -> VaeFit:
    """A fit that knows no item, for pairs of which none can be trained; its epochs are those asked for."""
    width, dims = settings.hidden_units, settings.embedding_dim

    def zeros(*shape: int) -> Floats:
        return np.zeros(shape, np.float32)

    layers = zeros(LAYERS, width)
    encoder = Encoder(
        inputs=zeros(n_items, width),
        biases=layers,
        hidden=zeros(LAYERS - 1, width, width),
        gains=layers,
        shifts=layers,
        outputs=zeros(dims, width),
        output_biases=zeros(dims),
        is_known=np.zeros(n_items, bool),
    )
    return VaeFit(encoder, zeros(n_items, dims + 1), (), settings.epochs)


def encoder_of(layers: HistoryEncoder) -> Encoder:
    """Its arrays, of the items that are trained."""
    first, *others = (as_array(layer.kernel) for layer in layers.hidden)
    return Encoder(
        inputs=first,
        biases=np.stack([as_array(layer.bias) for layer in layers.hidden]),
        hidden=np.stack([np.ascontiguousarray(kernel.T) for kernel in others]),
        gains=np.stack([as_array(norm.gamma) for norm in layers.norms]),
        shifts=np.stack([as_array(norm.beta) for norm in layers.norms]),
        outputs=np.ascontiguousarray(as_array(layers.mean.kernel).T),
        output_biases=as_array(layers.mean.bias),
        is_known=np.ones(len(first), bool),
    )


def _item_vectors(model: HistoryAutoencoder) -> Floats:
    return np.hstack([as_array(model.decode.kernel).T, as_array(model.decode.bias)[:, None]]).astype(np.float32)


def _spread(trained: Floats, part: TrainedPart) -> Floats:
    """Rows of the trained items among all, 0 for others."""
    spread = np.zeros((part.all_pairs.n_items, trained.shape[1]), np.float32)
    spread[part.items] = trained
    return spread


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Renews the prior for each epoch and measures it, for early stopping (which stands behind it) and the caller."""

    def __init__(
        self, rows: CsrRows, referee: RankingValidation | None, on_epoch: Callable[[EpochLog], None] | None
    ) -> None:
        super().__init__()
        self.history: list[EpochLog] = []
        self.referee = referee
        self._rows, self._on_epoch, self._started = rows, on_epoch, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.perf_counter()
        self.model.earlier.set_weights(self.model.encoder.get_weights())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if not np.isfinite(logs["loss"]):
            raise RecsysError(f"training of vae diverged in epoch {epoch + 1}: lower vae.learning_rate")
        ndcg = None
        if self.referee is not None:
            encoder, vectors = encoder_of(self.model.encoder), _item_vectors(self.model)

            def best_items(users: NDArray[np.intp], seen: IndexLists, k: int) -> NDArray[np.intp]:
                return score_top_k(encode_rows(self._rows.take_rows(users), encoder), vectors, seen, k).indices

            ndcg = logs[_MONITOR] = self.referee.ndcg(best_items)
        log = EpochLog(epoch + 1, float(logs["loss"]), ndcg, time.perf_counter() - self._started)
        self.history.append(log)
        if self._on_epoch is not None:
            self._on_epoch(log)
