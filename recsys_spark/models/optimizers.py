"""The optimizer of the embedding tables: its work and memory follow what a batch touches, not what the tables hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras, ops, steps


class RowwiseAdagrad(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Adagrad with two accumulators a row instead of one a weight.

    One is of the row's vector, and holds means of squares; one is of its bias. A variable says by `row_parts` which of
    its columns are which, two arrays (width,) of ones and zeros; others stay as they are. Without, a row is a vector.
    A step touches the rows of the batch only, where Keras' own optimizers walk the whole table. A row that occurs
    several times in a batch adds the square of each of its gradients. Duchi et al., JMLR 2011; one scalar a row as in
    Facebook's DLRM.
    """

    def __init__(self, learning_rate: float, epsilon: float = 1e-10, name: str = "rowwise_adagrad") -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        self._epsilon = epsilon
        self._squares: list[Any] = []
        self._parts: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    def build(self, variables: list[Any]) -> None:
        """Two accumulators for each row of each variable."""
        if self.built:
            return
        super().build(variables)
        self._squares = [
            self.add_variable(shape=(variable.shape[0], 2), initializer="zeros", name=f"{variable.name}_squares")
            for variable in variables
        ]
        self._parts = [getattr(variable, "row_parts", None) or _whole_rows(variable) for variable in variables]

    def squares_of(self, variable: Any) -> Any:
        """The accumulators of a variable, (rows, 2)."""
        return self._squares[self._get_variable_index(variable)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move the rows the gradient touches."""
        place = self._get_variable_index(variable)
        squares, (of_vector, of_bias) = self._squares[place], self._parts[place]
        rows, given = steps.rows_and_values(gradient)
        values = ops.reshape(given, (-1, len(of_vector)))
        squared = ops.square(values)
        # Products with ones and zeros, because parts that are cut and put together again take twice the time.
        mean = ops.sum(ops.multiply(squared, of_vector / of_vector.sum()), axis=1)
        own = mean, ops.sum(ops.multiply(squared, of_bias), axis=1)
        steps.add_to_rows(squares, rows, ops.stack(own, axis=1))
        scales = -learning_rate * ops.rsqrt(ops.take(squares, rows, axis=0) + self._epsilon)
        moves = values * (ops.multiply(scales[:, :1], of_vector) + ops.multiply(scales[:, 1:], of_bias))
        steps.add_to_rows(variable, rows, ops.reshape(moves, ops.shape(given)))


def _whole_rows(variable: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    width = math.prod(variable.shape[1:])
    return np.ones(width, np.float32), np.zeros(width, np.float32)
