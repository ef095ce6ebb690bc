"""A small network that ranks candidates: what it takes of them, and its layers, without the framework it learned in."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.simd import dot

Floats = NDArray[np.float32]

ITEM_FACTS = 4
"""Of an item: popularity, log(1 + days since its first interaction), the same since its last, 1 where it has none."""


class Network(NamedTuple):
    """A score is the blend's, plus output . relu(second relu(first x + first_biases) + second_biases).

    `first` (h, f), `second` (g, h), their biases, and `output` (g,), float32; x is (features - means) / scales.
    """

    means: Floats
    scales: Floats
    first: Floats
    first_biases: Floats
    second: Floats
    second_biases: Floats
    output: Floats


def ranking_features(scores: Floats, sums: Floats, history: NDArray[np.int64], facts: Floats) -> Floats:
    """What the network takes of candidates, (p, c + 6).

    Of the components' scores (p, c), the blend's (p,), how many items the user has (p,), and facts of the item (p, 4).
    """
    user = np.log1p(history).astype(np.float32)
    return np.column_stack([scores, sums, user, facts]).astype(np.float32)


def network_scores(features: Floats, sums: Floats, network: Network) -> Floats:
    """Scores of candidates, (p,), by features (p, f) and the blend's scores (p,): each candidate's bits are its own."""
    arrays = (kernel_input(array, np.float32) for array in (features, sums, *network))
    return _scores(*arrays)


@compiled
def _scores(
    features: Floats,
    sums: Floats,
    means: Floats,
    scales: Floats,
    first: Floats,
    first_biases: Floats,
    second: Floats,
    second_biases: Floats,
    output: Floats,
) -> Floats:
    scores, scaled = np.empty(sums.size, np.float32), np.empty(means.size, np.float32)
    below, above = np.empty(first_biases.size, np.float32), np.empty(second_biases.size, np.float32)
    for candidate in range(sums.size):
        for place in range(means.size):
            scaled[place] = (features[candidate, place] - means[place]) / scales[place]
        for unit in range(below.size):
            below[unit] = max(np.float32(dot(first[unit], scaled) + first_biases[unit]), np.float32(0.0))
        for unit in range(above.size):
            above[unit] = max(np.float32(dot(second[unit], below) + second_biases[unit]), np.float32(0.0))
        scores[candidate] = np.float32(sums[candidate] + dot(output, above)) + np.float32(0.0)
    return scores
