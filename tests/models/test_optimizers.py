import numpy as np
import pytest
import tensorflow as tf

from recsys_spark.models.backend import keras
from recsys_spark.models.optimizers import RowwiseAdagrad


def test_rows_of_the_batch_move_by_their_own_squares() -> None:
    table = keras.Variable(np.zeros((3, 4), np.float32), name="table")
    table.row_parts = np.array([1, 1, 0, 0], np.float32), np.array([0, 0, 1, 0], np.float32)
    optimizer = RowwiseAdagrad(learning_rate=0.5)
    # Row 2 comes twice: mean squares (9 + 1) / 2 = 5 and (1 + 1) / 2 = 1 add up to 6; its bias has 4 and 5.
    values = [[3.0, 1.0, 2.0, 7.0], [4.0, 0.0, 1.0, 7.0], [1.0, -1.0, -1.0, 7.0]]
    gradient = tf.IndexedSlices(tf.constant(values), tf.constant([2, 0, 2]), (3, 4))
    optimizer.apply([gradient], [table])
    assert np.asarray(optimizer.squares_of(table)) == pytest.approx(np.array([[8, 1], [0, 0], [6, 5]]))
    moved = -0.5 * np.array([[4 / 8**0.5, 0, 1, 0], [0, 0, 0, 0], [4 / 6**0.5, 0, 1 / 5**0.5, 0]])
    assert np.asarray(table) == pytest.approx(moved, rel=1e-5)


def test_a_dense_gradient_moves_every_row() -> None:
    biases = keras.Variable(np.zeros(2, np.float32), name="biases")
    optimizer = RowwiseAdagrad(learning_rate=0.1)
    for _ in range(2):
        optimizer.apply([tf.constant([2.0, -3.0])], [biases])
    step = 0.1 * (1 + 1 / 2**0.5)
    assert np.asarray(biases) == pytest.approx([-step, step], rel=1e-5)
