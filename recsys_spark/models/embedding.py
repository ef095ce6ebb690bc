"""The embedding model: two tables, two biases, a dot product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.pooling import SHORTEST, unit_rows
from recsys_spark.kernels.scoring import score_pairs, score_top_k
from recsys_spark.models.backend import keras, ops, tf

_PAIRS_AT_ONCE = 2**16
_STEPS_AT_ONCE = 16  # between two of which Python has its turn, which takes as long as a small step

Tensor = Any
Batch = tuple[tuple[Tensor, ...], Tensor, Tensor]
"""Of `batches`: positions, ratings, weights."""


class Encoded(NamedTuple):
    """Users or items as a tower gives them: `vectors` (..., d) and `biases` (...)."""

    vectors: Tensor
    biases: Tensor


class EmbeddingTower(keras.layers.Layer):  # type: ignore[misc]
    """A table of vectors and biases; with `is_unit` the vectors score at length one and the biases not at all."""

    def __init__(self, rows: int, embedding_dim: int, name: str, is_unit: bool = False) -> None:
        super().__init__(name=name)
        self.embedding_dim = embedding_dim
        self.is_unit = is_unit
        # Zeros, because training assigns its own start: random rows, or those of the night before.
        self.vectors = self.add_weight(shape=(rows, embedding_dim), initializer="zeros", name="vectors")
        self.biases = self.add_weight(shape=(rows,), initializer="zeros", trainable=not is_unit, name="biases")
        self.built = True

    def call(self, idx: Tensor) -> Encoded:
        """Rows of the table: positions (...) to vectors (..., d) and biases (...)."""
        vectors = ops.take(self.vectors, idx, axis=0)
        if self.is_unit:
            return Encoded(of_length_one(vectors), ops.zeros_like(vectors[..., 0]))
        return Encoded(vectors, ops.take(self.biases, idx, axis=0))

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All vectors (rows, d) and biases (rows,) as they score."""
        vectors, biases = self.vectors.numpy(), self.biases.numpy()
        return (unit_rows(vectors), np.zeros_like(biases)) if self.is_unit else (vectors, biases)


def of_length_one(vectors: Tensor) -> Tensor:
    """Vectors (..., d) divided by their lengths; those of length 0 stay."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, SHORTEST))


class EmbeddingModel(keras.Model):  # type: ignore[misc]
    """score = offset + user bias + item bias + user vector . item vector. Koren et al., Computer 42(8), 2009.

    With `is_cosine` the vectors are divided by their lengths first, and biases stay 0.
    """

    advice = "lower model.learning_rate"
    """What to do when training diverges."""

    def __init__(self, n_users: int, n_items: int, embedding_dim: int, is_cosine: bool = False) -> None:
        super().__init__(name="embedding_model")
        self.users = EmbeddingTower(n_users, embedding_dim, "users", is_cosine)
        self.items = EmbeddingTower(n_items, embedding_dim, "items", is_cosine)
        self.offset = self.add_weight(shape=(), initializer="zeros", trainable=False, name="offset")
        self.built = True

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Scores (b,) of pairs: `inputs` are user positions (b,) and item positions (b,)."""
        user_idx, item_idx = inputs
        return self.score(self.users(user_idx), self.items(item_idx))

    def encode_users(self, batch: Batch, step: Tensor) -> tuple[Encoded, Tensor]:
        """The users (u,) of a batch of `UserBatches`, and the weight (b,) of each of its pairs as what to learn."""
        (user_idx, rows, _), _, _ = batch
        return self.users(user_idx), ops.ones_like(rows, dtype="float32")

    def read_users(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All users' vectors (n_users, d) and biases (n_users,) as they score."""
        return self.users.read()

    def score(self, users: Encoded, items: Encoded) -> Tensor:
        """Scores of encoded pairs, of their common shape."""
        # A sum of products, because the Dot layer runs b products of one row and one column.
        products = ops.sum(users.vectors * items.vectors, axis=-1)
        return self.offset + users.biases + items.biases + products

    def score_all(self, users: Encoded, items: Encoded) -> Tensor:
        """Scores (u, k) of each of u encoded users with each of k encoded items."""
        products = ops.matmul(users.vectors, ops.transpose(items.vectors))
        return self.offset + users.biases[:, None] + items.biases + products

    def ranking_vectors(self, user_idx: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Matrices (q, d + 1) and (n, d + 1) whose product orders the items of some users as the scores do."""
        (users, _), (items, biases) = self.read_users(), self.items.read()
        ones = np.ones((len(user_idx), 1), dtype=np.float32)
        return np.hstack([users[user_idx], ones]), np.hstack([items, biases[:, None]])

    def best_items(self, user_idx: NDArray[np.intp], seen: IndexLists, k: int) -> NDArray[np.intp]:
        """The k best items of some users (q,) without those in `seen`, (q, k), best first; -1 where there are fewer."""
        return score_top_k(*self.ranking_vectors(user_idx), seen, k).indices

    def score_pairs(self, user_idx: NDArray[Any], item_idx: NDArray[Any]) -> NDArray[np.float32]:
        """Scores of pairs, (p,); memory: the vectors of both sides."""
        (users, user_biases), (items, item_biases) = self.read_users(), self.items.read()
        scores: NDArray[np.float32] = user_biases[user_idx] + item_biases[item_idx] + self.offset.numpy()
        for first in range(0, len(scores), _PAIRS_AT_ONCE):
            chunk = slice(first, first + _PAIRS_AT_ONCE)
            scores[chunk] += self.score_vectors(users[user_idx[chunk]], items[item_idx[chunk]])
        return scores

    def score_vectors(self, users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
        """What vectors give to the scores of pairs, (p,), by row of two (p, d)."""
        return score_pairs(users, items)

    def compile(self, objective: Callable[..., Tensor], optimizer: keras.optimizers.Optimizer) -> None:
        """Set what a step minimises, one of `objectives`, and how."""
        # Explicit, because Keras' "auto" leaves XLA off where there is no GPU.
        super().compile(optimizer=optimizer, jit_compile=True, steps_per_execution=_STEPS_AT_ONCE)
        self._objective = objective
        self._loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        """The mean loss of the epoch."""
        return [self._loss]

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One compiled step on a batch of `PairBatches` or `UserBatches`."""
        with tf.GradientTape() as tape:
            losses, penalties, weight = self._objective(self, batch, self.optimizer.iterations)
            # The sum, so that the gradient of a row does not shrink as the batch grows.
            loss = ops.sum((losses + penalties) * weight)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        # Without the penalties, whose values take a tenth of a step: their gradients do not need them.
        self._loss.update_state(losses, sample_weight=weight)
        return {"loss": self._loss.result()}
