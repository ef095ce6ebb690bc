"""Vectors of items that were not trained, from what they are like: a mapping learned on those that were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.threads import one_thread
from recsys_spark.models.backend import keras
from recsys_spark.models.closed_form import StepNumbers
from recsys_spark.models.content import ItemContent
from recsys_spark.models.embeddings import Embeddings

LEAST_TRAINED = 10  # items to learn from; of fewer a mapping would tell nothing

_SMALLEST = 1e-6  # of the variances of scores, beside the largest: directions that no score tells apart
_PENALTY = 1.0  # on the weights, beside the sum of the squared errors
_STEPS, _LEFT = 60, 1e-3  # most steps, and the share of the gradient that is left when fewer are enough


def map_cold_items(embeddings: Embeddings, content: ItemContent, most_items: int, seed: int) -> Embeddings:
    """The embeddings with a vector and bias for items that are not trained and of which something is known.

    A layer maps the features of an item to its vector, by the squared errors of the users' scores, which are those of
    the vectors in the metric U^T U of the users, and an L2 penalty. It learns from up to `most_items` trained ones with
    all of their interactions dropped, which is what DropoutNet sees of cold items (Volkovs et al., NeurIPS 2017). A
    hidden layer did not find more, nor did dropout of features instead of the penalty (docs/decisions/0022). Trained
    items keep their vectors. With fewer than 10 trained items that are described, without users, and for `neumf`,
    nothing changes. Bytes: 24 x (terms + m) x (d + 1), 24 a term of an item, and 16 x (d + 1) an item.
    """
    described = content.is_described
    known, cold = (
        np.flatnonzero(described & flags) for flags in (embeddings.is_trained_item, ~embeddings.is_trained_item)
    )
    users = embeddings.user_vectors[embeddings.is_trained_user]
    if embeddings.hidden is not None or len(known) < LEAST_TRAINED or len(cold) == 0 or not users.any():
        return embeddings
    known = np.sort(np.random.default_rng([seed, 6]).permutation(known)[:most_items])
    root = _root_of_gram(users)
    wanted = np.column_stack([embeddings.item_vectors[known] @ root, embeddings.item_biases[known]]).astype(np.float32)
    mapping = FeatureMapping(_Features(content, known), wanted)
    mapping.fit(StepNumbers(1), epochs=_STEPS, verbose=0, shuffle=False)
    found = mapping.vectors(_Features(content, cold))
    vectors, biases, is_mapped = embeddings.item_vectors.copy(), embeddings.item_biases.copy(), np.zeros_like(described)
    vectors[cold] = found[:, :-1] @ np.linalg.pinv(root, rcond=_SMALLEST, hermitian=True)
    biases[cold] = found[:, -1]
    is_mapped[cold] = True
    return replace(embeddings, item_vectors=vectors, item_biases=biases, is_mapped_item=is_mapped)


def _root_of_gram(users: Floats) -> Floats:
    """The symmetric root of U^T U / m, (d, d)."""
    gram = users.T.astype(np.float64) @ users / len(users)
    values, axes = np.linalg.eigh(gram)
    root: Floats = ((axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T).astype(np.float32)
    return root


class _Features:
    """The features of some items as a matrix that is nowhere filled in: terms, numbers, and 1 for the bias."""

    def __init__(self, content: ItemContent, items: NDArray[np.intp]) -> None:
        rows = content.terms.take_rows(items)
        self._terms = sparse.csr_array((rows.values, rows.indices, rows.indptr), (rows.n_rows, rows.n_columns))
        self._numbers = np.column_stack([content.numbers[items], np.ones(len(items), np.float32)])
        self.width = rows.n_columns + self._numbers.shape[1]

    def times(self, weights: Floats) -> Floats:
        """The products with weights, (width, w), of each item."""
        n_terms = self._terms.shape[1]
        products: Floats = self._terms @ weights[:n_terms] + self._numbers @ weights[n_terms:]
        return products

    def transposed_times(self, errors: Floats) -> Floats:
        """The sums over all items of their features times errors, (items, w)."""
        return np.vstack([self._terms.T @ errors, self._numbers.T @ errors])

    def squares(self) -> Floats:
        """The sums of the squares of each feature, (width, 1)."""
        of_terms = np.asarray(self._terms.power(2).sum(axis=0)).ravel()
        return np.concatenate([of_terms, np.square(self._numbers).sum(axis=0)]).astype(np.float32)[:, None]


class FeatureMapping(keras.Model):  # type: ignore[misc]
    """A linear layer from features of items to wanted vectors, (items, w), by squared errors and an L2 penalty.

    An epoch is one step of conjugate gradients over all items, for each column its own, preconditioned by the squares
    of the features; the loss is the share of the gradient that is left. Hestenes and Stiefel, J. Res. NBS 49, 1952.
    """

    def __init__(self, features: _Features, wanted: Floats) -> None:
        super().__init__()
        self.layer = keras.layers.Dense(wanted.shape[1], use_bias=False, kernel_initializer="zeros")
        self.layer.build((None, features.width))
        # Eagerly, because a step is a few calls of code that is compiled already.
        self.compile(optimizer=None, run_eagerly=True, jit_compile=False)
        self._loss = keras.metrics.Mean(name="loss")
        self._features = features
        self._penalty = np.full((features.width, 1), _PENALTY, np.float32)
        self._penalty[-1] = 0.0  # of the bias
        self._scale = 1.0 / (features.squares() + np.maximum(self._penalty, np.float32(1e-12)))
        self._left = features.transposed_times(wanted)
        self._direction = self._scale * self._left
        self._size = _dots(self._left, self._direction)
        self._first = float(np.sqrt(self._size.sum()))

    def train_step(self, batch: Any) -> dict[str, Any]:
        """Go to the least error in the direction of each column."""
        with one_thread():
            curved = self._features.transposed_times(self._features.times(self._direction))
            curved += self._penalty * self._direction
        step = _ratio(self._size, _dots(self._direction, curved))
        self.layer.kernel.assign(keras.ops.convert_to_numpy(self.layer.kernel) + step * self._direction)
        self._left -= step * curved
        scaled = self._scale * self._left
        size = _dots(self._left, scaled)
        self._direction = scaled + _ratio(size, self._size) * self._direction
        self._size = size
        share = float(np.sqrt(size.sum())) / max(self._first, 1e-30)
        self.stop_training = share < _LEFT
        self._loss.update_state(share)
        return {"loss": self._loss.result()}

    def vectors(self, features: _Features) -> Floats:
        """What the layer makes of other items, (items, w)."""
        with one_thread():
            return features.times(keras.ops.convert_to_numpy(self.layer.kernel))


def _dots(one: Floats, other: Floats) -> NDArray[np.float64]:
    """The products of each column of two matrices, (w,)."""
    products: NDArray[np.float64] = np.einsum("fw,fw->w", one, other, dtype=np.float64)
    return products


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> Floats:
    """0 where there is nothing left to divide, float32, (w,)."""
    return np.where(below > 0.0, above / np.where(below > 0.0, below, 1.0), 0.0).astype(np.float32)
