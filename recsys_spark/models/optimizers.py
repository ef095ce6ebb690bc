"""Optimizers whose steps cost what a batch touches, not what the tables hold."""

from __future__ import annotations

from typing import Any

from recsys_spark.models.backend import keras, tf


class RowwiseAdagrad(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Adagrad with one accumulator a row instead of one a weight.

    A step touches the rows of the batch only, where Keras' own optimizers walk the whole table. A row that occurs
    several times in a batch adds the square of each of its gradients. Duchi et al., JMLR 2011; one scalar a row as
    in Facebook's DLRM.
    """

    def __init__(self, learning_rate: float, epsilon: float = 1e-10, name: str = "rowwise_adagrad") -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        self._epsilon = epsilon
        self._squares: list[Any] = []

    def build(self, variables: list[Any]) -> None:
        """One accumulator for each row of each variable."""
        if self.built:
            return
        super().build(variables)
        self._squares = [
            self.add_variable(shape=variable.shape[:1], initializer="zeros", name=f"{variable.name}_squares")
            for variable in variables
        ]

    def squares_of(self, variable: Any) -> Any:
        """The accumulator of a variable, (rows,)."""
        return self._squares[self._get_variable_index(variable)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move the rows the gradient touches."""
        squares = self.squares_of(variable).value
        if not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.IndexedSlices(gradient, tf.range(tf.shape(gradient)[0]))
        rows, values = gradient.indices, gradient.values
        columns = tf.range(1, tf.rank(values))
        squares.scatter_add(tf.IndexedSlices(tf.reduce_mean(tf.square(values), axis=columns), rows))
        scale = learning_rate * tf.math.rsqrt(tf.gather(squares, rows) + self._epsilon)
        scale = tf.reshape(scale, tf.concat([tf.shape(rows), tf.ones_like(columns)], 0))
        variable.scatter_sub(tf.IndexedSlices(values * scale, rows))
