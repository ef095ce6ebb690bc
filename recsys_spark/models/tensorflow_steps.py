"""What a training step needs beyond Keras' own operations, on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import ops

Tensor = Any

IS_COMPILED = True
# It adds up what is summed in an order that is another one in some of many runs, and so are the last bits.
tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
tf.config.list_physical_devices()  # at the first look it writes about missing GPUs, which importers keep quiet


def take_rows(table: Any, idx: Tensor) -> Tensor:
    """Rows of a variable at positions (...); its gradient holds these rows alone."""
    return ops.take(table, idx, axis=0)


def differentiate(compute: Callable[[], tuple[Tensor, Any]], variables: list[Any]) -> tuple[Any, list[Any]]:
    """The gradients of what `compute` gives first, and what it gives beside it."""
    with tf.GradientTape() as tape:
        loss, beside = compute()
    return beside, tape.gradient(loss, variables)


def rows_and_values(gradient: Any) -> tuple[Tensor, Tensor]:
    """The rows (r,) that a gradient touches, repeated as they come, and what it is there (r, ...)."""
    if isinstance(gradient, tf.IndexedSlices):
        return gradient.indices, gradient.values
    return tf.range(tf.shape(gradient)[0]), gradient


def add_to_rows(variable: Any, rows: Tensor, values: Tensor) -> None:
    """Add to rows (r,) of a variable; those that come several times add up."""
    # Optimizers are given TensorFlow's own variables, not Keras'.
    known = variable if isinstance(variable, tf.Variable) else variable.value
    known.scatter_add(tf.IndexedSlices(values, rows))


def copy_values(variable: Any) -> Any:
    """The values of a variable of Keras as a NumPy array."""
    return variable.value.numpy()


def repeat(times: int, step: Callable[[Tensor, Tensor], Tensor], state: Tensor) -> Tensor:
    """Steps numbered from 0, each given the state that the one before left."""
    return ops.fori_loop(0, times, step, state)


def draw_uniform(shape: Any, seed: int, step: Tensor) -> Tensor:
    """Numbers from 0 to below 1, a pure function of seed and step."""
    return tf.random.stateless_uniform(shape, _seed(seed, step))


def draw_integers(shape: Any, seed: int, step: Tensor, below: int) -> Tensor:
    """Whole numbers from 0 on, int32, a pure function of seed and step."""
    return tf.random.stateless_uniform(shape, _seed(seed, step), 0, below, tf.int32)


def _seed(seed: int, step: Tensor) -> Tensor:
    return tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
