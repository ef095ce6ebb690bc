"""Users from what they have, by the encoder of a variational autoencoder, without the framework it learned in."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.pooling import pool_rows
from recsys_spark.kernels.simd import dot

Floats = NDArray[np.float32]

NORM_EPSILON = 0.1
"""What the normalisation of a layer adds to the variance."""


class Encoder(NamedTuple):
    """Layers h_l = norm(swish(W_l h_{l-1} + b_l + h_1 + ... + h_{l-1})) from a row of length one; the last one's mean.

    `inputs` (n_items, h) are the columns of W_1; `biases` (l, h), `hidden` (l - 1, h, h), and what each layer is
    normalised to: `gains` and `shifts` (l, h). The mean is `outputs` (d, h) times the last layer, plus `output_biases`
    (d,). float32, but `is_known` (n_items,) bool: items that are in rows.
    """

    inputs: Floats
    biases: Floats
    hidden: Floats
    gains: Floats
    shifts: Floats
    outputs: Floats
    output_biases: Floats
    is_known: NDArray[np.bool_]


def encode_rows(rows: CsrRows, encoder: Encoder) -> Floats:
    """Users' vectors by their items, (rows, d + 1), of which the last number is 1, for the items' biases.

    A row without an item that is known is 0. A row's bits depend on the row and the encoder alone. Memory beside the
    vectors: 4 x h bytes a row.
    """
    known = rows.select(encoder.is_known[rows.indices])
    pooled = pool_rows(known, encoder.inputs)
    arrays = (kernel_input(array, np.float32) for array in (pooled, *encoder[1:-1]))
    return _encode(kernel_input(known.indptr, np.int64), *arrays)


@compiled
def _encode(
    indptr: NDArray[np.int64],
    pooled: Floats,
    biases: Floats,
    hidden: Floats,
    gains: Floats,
    shifts: Floats,
    outputs: Floats,
    output_biases: Floats,
) -> Floats:
    dims, width = outputs.shape
    vectors = np.zeros((indptr.size - 1, dims + 1), np.float32)
    below, sums, before = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float64)
    for row in range(indptr.size - 1):
        if indptr[row] == indptr[row + 1]:
            continue
        sums[:] = 0.0
        for layer in range(len(biases)):
            total = 0.0
            for unit in range(width):
                value = pooled[row, unit] if layer == 0 else dot(hidden[layer - 1, unit], below)
                value += biases[layer, unit] + sums[unit]
                before[unit] = value / (1.0 + math.exp(-value))
                total += before[unit]
            mean, squares = total / width, 0.0
            for unit in range(width):
                squares += (before[unit] - mean) ** 2
            scale = 1.0 / math.sqrt(squares / width + NORM_EPSILON)
            for unit in range(width):
                below[unit] = (before[unit] - mean) * scale * gains[layer, unit] + shifts[layer, unit]
                sums[unit] += below[unit]
        for place in range(dims):
            vectors[row, place] = dot(outputs[place], below) + output_biases[place]
        vectors[row, dims] = 1.0
    return vectors
