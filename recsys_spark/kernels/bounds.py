"""What bounds the scores of items before any query comes, and the order of items that ends a search early."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import Real, Whole, compiled, kernel_input
from recsys_spark.kernels.simd import dot

BOUND_ROWS = 1024
SAMPLED_ROWS = 1024
ROUNDING = 2.0**-20  # far more than float64 sums and a rounding to float32 can add to a bound


class ItemBounds(NamedTuple):
    """Bounds of item vectors (n, d), whose last e dimensions are looked at one by one.

    `widths`, (d,), is the largest magnitude in each dimension. From row t x `BOUND_ROWS` on, no vector is longer than
    `norms[t]`, (t,), in its first d - e dimensions, and the others lie between `lowest[t]` and `highest[t]`, (t, e).
    """

    widths: NDArray[np.float32]
    norms: NDArray[np.float64]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]


def search_order(norms: NDArray[np.float64]) -> NDArray[np.int32]:
    """Rows of item vectors with these norms, (n,), in an order in which a search can end early: the longest first.

    Before them come `SAMPLED_ROWS` of all lengths, from which limits can be guessed. Teflioudi et al., "LEMP",
    SIGMOD 2015.
    """
    by_norm = np.argsort(-norms, kind="stable").astype(np.int32)
    if len(by_norm) <= SAMPLED_ROWS:
        return by_norm
    is_sampled = np.zeros(len(by_norm), np.bool_)
    is_sampled[np.arange(SAMPLED_ROWS) * len(by_norm) // SAMPLED_ROWS] = True
    return np.concatenate([by_norm[is_sampled], by_norm[~is_sampled]])


def bounds_in_order(vectors: NDArray[np.float32], n_apart: int = 0) -> ItemBounds:
    """The bounds of item vectors (n, d) that lie in `search_order`."""
    items = kernel_input(vectors, np.float32)
    starts = np.arange(0, max(len(items), 1), BOUND_ROWS)
    apart = items[:, items.shape[1] - n_apart :]
    if len(items) == 0:
        nothing = np.zeros((1, n_apart), np.float32)
        return ItemBounds(_largest_magnitudes(items), np.zeros(1), nothing, nothing)
    norms = np.maximum.reduceat(vector_norms(items, n_apart), starts)
    lowest, highest = np.minimum.reduceat(apart, starts, axis=0), np.maximum.reduceat(apart, starts, axis=0)
    return ItemBounds(
        _largest_magnitudes(items),
        np.maximum.accumulate(norms[::-1])[::-1].copy(),
        np.minimum.accumulate(lowest[::-1], axis=0)[::-1].copy(),
        np.maximum.accumulate(highest[::-1], axis=0)[::-1].copy(),
    )


def bounds_of_any_order(vectors: NDArray[np.float32]) -> ItemBounds:
    """The bounds of item vectors (n, d) in an order that ends no search early."""
    nothing = np.zeros((1, 0), np.float32)
    return ItemBounds(_largest_magnitudes(kernel_input(vectors, np.float32)), np.full(1, np.inf), nothing, nothing)


def vector_norms(vectors: NDArray[np.float32], n_apart: int) -> NDArray[np.float64]:
    """Lengths of vectors (n, d) in their first d - `n_apart` dimensions, (n,)."""
    return _vector_norms(kernel_input(vectors, np.float32), n_apart)


@compiled
def _vector_norms(vectors: NDArray[np.float32], n_apart: int) -> NDArray[np.float64]:
    norms, n_together = np.empty(vectors.shape[0]), vectors.shape[1] - n_apart
    for row in range(norms.size):
        together = vectors[row, :n_together]
        norms[row] = np.sqrt(dot(together, together))
    return norms


@compiled
def score_bound(vector: NDArray[np.float32], norm: Real, bounds: ItemBounds, row: Whole) -> float:
    """No item from `row` on scores more with a query (d,) of that norm."""
    tile = min(row // BOUND_ROWS, bounds.norms.size - 1)
    n_apart = bounds.lowest.shape[1]
    bound = norm * bounds.norms[tile]
    size = bound
    for place in range(n_apart):
        value = vector[vector.size - n_apart + place]
        part = max(value * bounds.lowest[tile, place], value * bounds.highest[tile, place])
        bound += part
        size += abs(part)
    return float(bound + ROUNDING * size)


@compiled
def _largest_magnitudes(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest magnitude in each dimension, (d,); NaN where a value is not finite."""
    largest = np.zeros(vectors.shape[1], np.float32)
    nothing = np.zeros(vectors.shape[1], np.float32)
    for row in range(vectors.shape[0]):
        for dimension in range(largest.size):
            magnitude = abs(vectors[row, dimension])
            largest[dimension] = magnitude if magnitude > largest[dimension] else largest[dimension]
            nothing[dimension] += magnitude * np.float32(0.0)
    for dimension in range(largest.size):
        largest[dimension] += nothing[dimension]
    return largest
