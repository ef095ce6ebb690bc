"""The ranking stage: a small network, learned from lists of candidates of which some turned out to be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.network import Network
from recsys_spark.models.backend import keras, ops

if TYPE_CHECKING:
    from recsys_spark.blend_sections import RankerSettings

Floats = NDArray[np.float32]
Tensor = Any

_LOWEST = -1e9  # what padding scores
_LEAST_SCALE = 1e-3


class RankingNetwork(keras.Model):  # type: ignore[misc]
    """The blend's score plus two hidden layers over the features; it starts as the blend, the output being 0."""

    def __init__(self, hidden_units: tuple[int, int], seed: int) -> None:
        super().__init__(name="ranking_network")
        seeds = [keras.initializers.HeUniform(seed + place) for place in range(2)]
        self.hidden = [
            keras.layers.Dense(units, "relu", kernel_initializer=initial, name=f"hidden_{place}")
            for place, (units, initial) in enumerate(zip(hidden_units, seeds, strict=True))
        ]
        self.out = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="output")

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        """Scores (b, l) of features (b, l, f) and the blend's scores (b, l), which are very low where there is none."""
        rows, sums = inputs
        for layer in self.hidden:
            rows = layer(rows)
        return sums + ops.squeeze(self.out(rows), -1)


class ListwiseLoss(keras.losses.Loss):  # type: ignore[misc]
    """-log softmax of the relevant candidates, averaged: ListNet (Cao et al., ICML 2007)."""

    def call(self, wanted: Tensor, scores: Tensor) -> Tensor:
        """Of each list, (b,)."""
        return -ops.sum(wanted * ops.log_softmax(scores, axis=-1), axis=-1)


class RankingLists:
    """Lists of candidates as the network takes them: features scaled, lists filled up to one length.

    Memory: a batch of lists, beside the rows: features (p, f), the blend's scores (p,), and where lists start (u + 1,).
    """

    def __init__(
        self, indptr: NDArray[np.int64], features: Floats, sums: Floats, is_relevant: NDArray[np.bool_]
    ) -> None:
        self.indptr, self.features, self.sums, self.is_relevant = indptr, features, sums, is_relevant
        self.longest = int(np.diff(indptr).max(initial=1))

    def with_relevant(self) -> NDArray[np.intp]:
        """The lists that hold a relevant candidate."""
        before = np.concatenate([[0], np.cumsum(self.is_relevant)])
        return np.flatnonzero(before[self.indptr[1:]] > before[self.indptr[:-1]])

    def batch(self, lists: NDArray[np.intp], means: Floats, scales: Floats) -> tuple[tuple[Floats, Floats], Floats]:
        """((features (b, l, f), the blend's scores (b, l)), shares of the relevant (b, l))."""
        shape = len(lists), self.longest
        rows = np.zeros((*shape, self.features.shape[1]), np.float32)
        sums, wanted = np.full(shape, _LOWEST, np.float32), np.zeros(shape, np.float32)
        for place, number in enumerate(lists):
            span = slice(self.indptr[number], self.indptr[number + 1])
            size = span.stop - span.start
            rows[place, :size] = (self.features[span] - means) / scales
            sums[place, :size] = self.sums[span]
            wanted[place, :size] = self.is_relevant[span] / max(int(self.is_relevant[span].sum()), 1)
        return (rows, sums), wanted


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of lists, in an order that depends on seed and epoch only; the last is filled up at weight 0."""

    def __init__(
        self, lists: RankingLists, chosen: NDArray[np.intp], scaling: tuple[Floats, Floats], size: int, seed: int | None
    ) -> None:
        super().__init__(workers=1)
        self._lists, self._chosen, self._scaling, self._seed, self._epoch = lists, chosen, scaling, seed, 0
        self._size = min(size, len(chosen))
        self._shuffle()

    def _shuffle(self) -> None:
        self._order = self._chosen.copy()
        if self._seed is not None:
            np.random.default_rng([self._seed, 8, self._epoch]).shuffle(self._order)

    def __len__(self) -> int:
        return -(-len(self._chosen) // self._size)

    def __getitem__(self, batch: int) -> tuple[tuple[Floats, Floats], Floats, Floats]:
        lists = self._order[batch * self._size : (batch + 1) * self._size]
        weights = (np.arange(self._size) < len(lists)).astype(np.float32)
        return *self._lists.batch(np.resize(lists, self._size), *self._scaling), weights

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self._epoch += 1
        self._shuffle()


def fit_ranker(
    lists: RankingLists, train: NDArray[np.bool_], settings: RankerSettings, seed: int
) -> tuple[Network, list[float]]:
    """The network that ranks best the lists it is not trained on, by loss, and that loss of each epoch.

    `train`, (u,), says which lists it learns from; the others stop it. The same arguments give the same bits on one
    type of processor. Raises RecsysError where the loss is no longer a number.
    """
    known = lists.with_relevant()
    learned, held_out = known[train[known]], known[~train[known]]
    rows = np.repeat(train, np.diff(lists.indptr))
    features = lists.features[rows].astype(np.float64)
    means, scales = features.mean(axis=0), features.std(axis=0)
    # What hardly differs here may differ elsewhere, and would then drown all else.
    scaling = means.astype(np.float32), np.where(scales > _LEAST_SCALE, scales, 1.0).astype(np.float32)
    model = RankingNetwork(settings.hidden_units, seed)
    model.compile(keras.optimizers.Adam(settings.learning_rate), loss=ListwiseLoss())
    stopping = keras.callbacks.EarlyStopping("val_loss", 0, settings.patience, mode="min", restore_best_weights=True)
    history = model.fit(
        _Batches(lists, learned, scaling, settings.batch_users, seed),
        validation_data=_Batches(lists, held_out, scaling, settings.batch_users, None),
        epochs=settings.epochs,
        verbose=0,
        callbacks=[stopping, keras.callbacks.TerminateOnNaN()],
        shuffle=False,
    )
    losses = [float(loss) for loss in history.history["val_loss"]]
    if not np.isfinite(losses).all():
        raise RecsysError(f"training of the ranker diverged in epoch {len(losses)}: lower ranker.learning_rate")
    return _network(model, *scaling), losses


def _network(model: RankingNetwork, means: Floats, scales: Floats) -> Network:
    (first, first_biases), (second, second_biases) = (
        (np.ascontiguousarray(ops.convert_to_numpy(layer.kernel).T), np.array(ops.convert_to_numpy(layer.bias)))
        for layer in model.hidden
    )
    output = np.array(ops.convert_to_numpy(model.out.kernel))[:, 0]
    return Network(means, scales, first, first_biases, second, second_biases, output)
