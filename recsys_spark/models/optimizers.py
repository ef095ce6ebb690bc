"""The optimizer of the embedding tables: its work and memory follow what a batch touches, not what the tables hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras, ops, steps


class RowwiseAdagrad(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Adagrad with two accumulators a row instead of one a weight.

    One is of the row's vector, the first `vector_columns` of a variable, and holds means of their squares; one is of
    what stands behind the vector, its bias. A step touches the rows of the batch only, where Keras' own optimizers walk
    the whole table. A row that occurs several times in a batch adds the square of each of its gradients. Duchi et al.,
    JMLR 2011; one scalar a row as in Facebook's DLRM.
    """

    def __init__(
        self, learning_rate: float, vector_columns: int, epsilon: float = 1e-10, name: str = "rowwise_adagrad"
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        self._vector_columns, self._epsilon = vector_columns, epsilon
        self._squares: list[Any] = []
        self._parts: list[NDArray[np.float32]] = []

    def build(self, variables: list[Any]) -> None:
        """Two accumulators for each row of each variable."""
        if self.built:
            return
        super().build(variables)
        self._squares = [
            self.add_variable(shape=(variable.shape[0], 2), initializer="zeros", name=f"{variable.name}_squares")
            for variable in variables
        ]
        self._parts = [self._parts_of(math.prod(variable.shape[1:])) for variable in variables]

    def _parts_of(self, width: int) -> NDArray[np.float32]:
        """1 where a column is of the vector, and where it is behind it, (2, width)."""
        is_vector = np.arange(width) < self._vector_columns
        return np.stack([is_vector, ~is_vector]).astype(np.float32)

    def squares_of(self, variable: Any) -> Any:
        """The accumulators of a variable, (rows, 2)."""
        return self._squares[self._get_variable_index(variable)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move the rows the gradient touches."""
        place = self._get_variable_index(variable)
        squares, (of_vector, behind) = self._squares[place], self._parts[place]
        rows, given = steps.rows_and_values(gradient)
        values = ops.reshape(given, (-1, len(of_vector)))
        squared = ops.square(values)
        # Products with ones and zeros, because parts that are cut and put together again take twice the time.
        mean = ops.sum(ops.multiply(squared, of_vector / of_vector.sum()), axis=1)
        own = mean, ops.sum(ops.multiply(squared, behind), axis=1)
        steps.add_to_rows(squares, rows, ops.stack(own, axis=1))
        scales = -learning_rate * ops.rsqrt(ops.take(squares, rows, axis=0) + self._epsilon)
        moves = values * (ops.multiply(scales[:, :1], of_vector) + ops.multiply(scales[:, 1:], behind))
        steps.add_to_rows(variable, rows, ops.reshape(moves, ops.shape(given)))
