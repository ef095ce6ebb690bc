"""The embedding model: a table of vectors and biases a side, and the product of their rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.pooling import SHORTEST, unit_rows
from recsys_spark.kernels.scoring import score_pairs, score_top_k
from recsys_spark.models.backend import keras, ops, steps

_PAIRS_AT_ONCE = 2**16
_LINE = 16  # float32 of a cache line

Tensor = Any
Batch = tuple[tuple[Tensor, ...], Tensor, Tensor]
"""Of `batches`: positions, ratings, weights."""


class EmbeddingTower(keras.layers.Layer):  # type: ignore[misc]
    """Users or items as rows, of which two score by their product: vector, bias, a one for the other's bias, zeros.

    `bias_column` says which of the two columns behind the vector holds the bias; the other side's is the other one.
    None: no biases. With `is_unit` the vectors score at length one. Rows are whole cache lines.
    """

    def __init__(
        self, rows: int, embedding_dim: int, name: str, bias_column: int | None = None, is_unit: bool = False
    ) -> None:
        super().__init__(name=name)
        self.embedding_dim, self.is_unit = embedding_dim, is_unit
        self._bias = None if bias_column is None else embedding_dim + bias_column
        # One table, because a step takes a turn for each row of each; in whole lines, where a turn takes half as long.
        width = -(-(embedding_dim + (0 if bias_column is None else 2)) // _LINE) * _LINE
        self._one = np.zeros(width, np.float32)
        of_vector, of_bias = np.zeros((2, width), np.float32)
        of_vector[:embedding_dim] = 1.0
        if bias_column is not None:
            of_bias[embedding_dim + bias_column] = self._one[embedding_dim + 1 - bias_column] = 1.0
        # Without vectors, because training assigns its own start: random rows, or those of the night before.
        self.table = self.add_weight(shape=(rows, width), initializer=self._blank_rows, name="table")
        self.table.row_parts = of_vector, of_bias  # what the optimizer moves, and what it keeps apart
        self.built = True

    def _blank_rows(self, shape: tuple[int, int], dtype: Any = None) -> Tensor:
        return ops.convert_to_tensor(np.broadcast_to(self._one, shape), dtype)

    def call(self, idx: Tensor) -> Tensor:
        """Rows (..., w) at positions (...)."""
        return self.finish(steps.take_rows(self.table, idx))

    def finish(self, rows: Tensor) -> Tensor:
        """What rows (..., w) of the table score as."""
        return of_length_one(rows) if self.is_unit else rows

    def complete(self, vectors: Tensor) -> Tensor:
        """Rows (..., w) of vectors that are not from the table: of the (..., w) given, the first columns count."""
        vectors = self.vectors_of(vectors)
        width = self.table.shape[1] - self.embedding_dim
        rows = ops.pad(vectors, [(0, 0)] * (len(vectors.shape) - 1) + [(0, width)])
        return of_length_one(rows) if self.is_unit else ops.add(rows, self._one)

    def vectors_of(self, rows: Tensor) -> Tensor:
        """The vectors (..., d) of rows (..., w)."""
        return rows[..., : self.embedding_dim]

    def assign(self, vectors: NDArray[np.float32], biases: NDArray[np.float32] | None = None) -> None:
        """Give all rows their vectors (rows, d) and biases (rows,)."""
        if vectors.shape == self.table.shape:
            self.table.assign(vectors)
            return
        table = np.tile(self._one, (len(vectors), 1))
        table[:, : self.embedding_dim] = vectors
        if self._bias is not None and biases is not None:
            table[:, self._bias] = biases
        self.table.assign(table)

    def vectors(self) -> NDArray[np.float32]:
        """All vectors as they are, (rows, d)."""
        return np.ascontiguousarray(as_array(self.table)[:, : self.embedding_dim])

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All vectors (rows, d) and biases (rows,) as they score."""
        vectors = self.vectors()
        biases = (
            np.zeros(len(vectors), np.float32) if self._bias is None else as_array(self.table)[:, self._bias].copy()
        )
        return unit_rows(vectors) if self.is_unit else vectors, biases


def as_array(variable: Any) -> NDArray[Any]:
    """A copy of the values of a variable."""
    array: NDArray[Any] = steps.copy_values(variable)
    return array


def ratings_of_scores(scores: NDArray[np.float32], is_logistic: bool) -> NDArray[np.float32]:
    """What scores (p,) say of ratings of 0-1."""
    ratings: NDArray[np.float32] = expit(scores) if is_logistic else scores
    return ratings


def score_of_rating(rating: float, is_logistic: bool) -> float:
    """The score that stands for a rating; of a logistic function within .01 to .99, whose scores are finite."""
    return float(logit(np.clip(rating, 0.01, 0.99))) if is_logistic else rating


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

    def __init__(
        self,
        n_users: int,
        n_items: int,
        embedding_dim: int,
        is_cosine: bool = False,
        has_biases: bool = True,
        items: EmbeddingTower | None = None,
    ) -> None:
        super().__init__(name="embedding_model")
        columns = (0, 1) if has_biases and not is_cosine else (None, None)
        self.users = EmbeddingTower(n_users, embedding_dim, "users", columns[0], is_cosine)
        self.items = items or EmbeddingTower(n_items, embedding_dim, "items", columns[1], is_cosine)
        self.offset = self.add_weight(shape=(), initializer="zeros", trainable=False, name="offset")
        self._product_dtype = "float32"
        self.is_logistic = False
        """Whether a rating is the logistic function of a score, or else the score."""
        self.steps_at_once = 1
        """Of how many batches the groups are that it learns from."""
        self.built = True

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Scores (b,) of pairs: `inputs` are user positions (b,) and item positions (b,)."""
        user_idx, item_idx = inputs
        return self.score(self.users(user_idx), self.items(item_idx))

    def encode_users(self, batch: Batch, step: Tensor) -> tuple[Tensor, Tensor]:
        """The rows (u, w) of a batch of `UserBatches`, and the weight (b,) of each of its pairs as what to learn."""
        (user_idx, rows, _), _, _ = batch
        return self.users(user_idx), ops.ones_like(rows, dtype="float32")

    def read_users(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All users' vectors (n_users, d) and biases (n_users,) as they score."""
        return self.users.read()

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of rows of both sides (..., w), of their common shape without the last."""
        # A sum of products, because the Dot layer runs b products of one row and one column.
        return self.offset + ops.sum(users * items, axis=-1)

    def score_all(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores (u, k) of each of u rows of users with each of k rows of items."""
        return self.offset + self.multiply(users, ops.transpose(items))

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """The product of two matrices, float32, in the precision of the training."""
        product = ops.matmul(ops.cast(left, self._product_dtype), ops.cast(right, self._product_dtype))
        return ops.cast(product, "float32")

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
        scores: NDArray[np.float32] = user_biases[user_idx] + item_biases[item_idx] + as_array(self.offset)
        for first in range(0, len(scores), _PAIRS_AT_ONCE):
            chunk = slice(first, first + _PAIRS_AT_ONCE)
            scores[chunk] += self.score_vectors(users[user_idx[chunk]], items[item_idx[chunk]])
        return scores

    def rate_pairs(self, user_idx: NDArray[Any], item_idx: NDArray[Any]) -> NDArray[np.float32]:
        """Ratings of pairs that the scores stand for, (p,)."""
        return ratings_of_scores(self.score_pairs(user_idx, item_idx), self.is_logistic)

    def score_vectors(self, users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
        """What vectors give to the scores of pairs, (p,), by row of two (p, d)."""
        return score_pairs(users, items)

    def compile(
        self, objective: Callable[..., Tensor], optimizer: keras.optimizers.Optimizer, product_dtype: str = "float32"
    ) -> None:
        """Set what a step minimises, one of `objectives`, how, and in what precision matrices are multiplied."""
        # Explicit, because Keras' "auto" leaves XLA off where there is no GPU.
        super().compile(optimizer=optimizer, jit_compile=steps.IS_COMPILED)
        self._objective, self._product_dtype = objective, product_dtype
        self._loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        """The mean loss of the epoch."""
        return [self._loss]

    def train_step(self, group: Batch) -> dict[str, Tensor]:
        """The steps of a group of `StepGroups`, one after the other; on TensorFlow compiled together."""
        together = _split(group, self.steps_at_once)
        sums = steps.repeat(self.steps_at_once, partial(self._step, together), ops.zeros(2))
        self._loss.update_state(sums[0] / sums[1], sample_weight=sums[1])
        return {"loss": self._loss.result()}

    def _step(self, group: Batch, number: Any, sums: Tensor) -> Tensor:
        """Learn from the batch of a number; add to the sums (2,) of losses and weights."""
        batch = tuple(_batch_of(part, number) for part in group)

        def compute() -> tuple[Tensor, Tensor]:
            losses, penalties, weight = self._objective(self, batch, self.optimizer.iterations)
            # The sum, so that the gradient of a row does not shrink as the batch grows. The loss that is told is
            # without the penalties, whose values take a tenth of a step: their gradients do not need them.
            return ops.sum((losses + penalties) * weight), ops.stack([ops.sum(losses * weight), ops.sum(weight)])

        weights = self.trainable_weights
        of_step, gradients = steps.differentiate(compute, weights)
        self.optimizer.apply(gradients, weights)
        return sums + of_step


def _split(part: Any, steps_at_once: int) -> Any:
    """Arrays (s x b,) as (s, b)."""
    if isinstance(part, tuple | list):
        return tuple(_split(each, steps_at_once) for each in part)
    return ops.reshape(part, (steps_at_once, -1))


def _batch_of(part: Any, number: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(_batch_of(each, number) for each in part)
    return ops.take(part, number, axis=0)
