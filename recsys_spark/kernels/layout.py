"""How vectors, biases and popularity stand side by side, so that every score is one product of two rows.

The columns pair up as: vector with vector, 1 with item bias, the user's constant with 1, and 0 with popularity. A user
that is not trained has 1 with popularity and 0 elsewhere, so his scores are the items' popularity. A trained user
scores items that are not trained about `UNTRAINED_SCORE`: far below all others.
"""

import numpy as np
from numpy.typing import NDArray

# Finite, because the fallback multiplies it by 0; so low that no trained item ever ranks behind it.
UNTRAINED_SCORE = np.float32(-1e30)

EXTRA_COLUMNS = 3
"""Columns beside the vectors."""

COLUMNS_APART = 2
"""The last of them: what is the same for all items, and popularity, which others pick."""

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


def user_columns(vectors: Floats, constants: Floats, is_trained: Flags) -> Floats:
    """The users' side, (m, d + 3), of vectors (m, d), what is added to all scores of each user (m,), and flags (m,)."""
    dims = vectors.shape[1]
    matrix = np.zeros((len(vectors), dims + EXTRA_COLUMNS), dtype=np.float32)
    np.multiply(vectors, is_trained[:, None], out=matrix[:, :dims])
    matrix[:, dims] = is_trained
    matrix[:, dims + 1] = constants * is_trained
    matrix[:, dims + 2] = ~is_trained
    return matrix


def item_columns(vectors: Floats, biases: Floats, popularity: Floats, is_trained: Flags) -> Floats:
    """The items' side, (n, d + 3), of vectors (n, d), biases (n,), popularity (n,) and flags (n,)."""
    dims = vectors.shape[1]
    matrix = np.zeros((len(vectors), dims + EXTRA_COLUMNS), dtype=np.float32)
    np.multiply(vectors, is_trained[:, None], out=matrix[:, :dims])
    matrix[:, dims] = np.where(is_trained, biases, UNTRAINED_SCORE)
    matrix[:, dims + 1] = 1
    matrix[:, dims + 2] = popularity
    return matrix
