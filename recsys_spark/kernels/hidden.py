"""A hidden layer over a user's and an item's vector, beside their product: scores that are not one matrix product."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import dot

Floats = NDArray[np.float32]


class HiddenLayer(NamedTuple):
    """Adds `output` . relu(`of_users` user + `of_items` item + `biases`) to a score.

    Shapes: `of_users` (h, d), `of_items` (h, d), `biases` (h,), `output` (h,), float32. He et al., WWW 2017.
    """

    of_users: Floats
    of_items: Floats
    biases: Floats
    output: Floats


def hidden_scores(users: Floats, items: Floats, layer: HiddenLayer) -> Floats:
    """What the layer adds to the scores of pairs, (p,), given by row of two (p, d): each pair's bits are its own."""
    arrays = (kernel_input(array, np.float32) for array in (users, items, *layer))
    return _of_pairs(*arrays)


def hidden_scores_of_all(users: Floats, items: Floats, layer: HiddenLayer) -> Floats:
    """What it adds to the scores of users (q, d) and items (n, d), each with each, (q, n)."""
    user_parts = users @ layer.of_users.T + layer.biases
    return _of_all(user_parts, np.ascontiguousarray(layer.of_items @ items.T), layer.output)


@compiled
def _of_pairs(
    users: Floats, items: Floats, of_users: Floats, of_items: Floats, biases: Floats, output: Floats
) -> Floats:
    scores = np.zeros(users.shape[0], np.float32)
    for pair in range(scores.size):
        for unit in range(output.size):
            value = dot(of_users[unit], users[pair]) + dot(of_items[unit], items[pair]) + biases[unit]
            scores[pair] += output[unit] * max(np.float32(value), np.float32(0.0))
    return scores


@compiled
def _of_all(user_parts: Floats, item_parts: Floats, output: Floats) -> Floats:
    """Of (q, h) and (h, n)."""
    scores = np.zeros((user_parts.shape[0], item_parts.shape[1]), np.float32)
    for user in range(scores.shape[0]):
        for unit in range(output.size):
            part, factor = user_parts[user, unit], output[unit]
            for item in range(scores.shape[1]):
                scores[user, item] += factor * max(part + item_parts[unit, item], np.float32(0.0))
    return scores
