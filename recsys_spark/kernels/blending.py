"""Scores of several models on one scale: each divided by its standard deviation over the items, user by user."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled, kernel_input

Floats = NDArray[np.float32]


class Centered(NamedTuple):
    """Item vectors less their mean over the known items, (n, d) float32, 0 for the others, and their covariance (d, d).

    The products of a user's vector u with all known items have the mean 0 and the variance u^T C u.
    """

    vectors: Floats
    covariance: NDArray[np.float64]


class Moments(NamedTuple):
    """Of the scores of each user's components over the items, (users, components): means, and 1 over deviations.

    The means of products are those with centered vectors, 0; a deviation of 0 counts as an infinite one.
    """

    means: NDArray[np.float64]
    inverses: NDArray[np.float64]


def center_vectors(vectors: Floats, is_known: NDArray[np.bool_]) -> Centered:
    """Center item vectors, (n, d), of which those of some items, (n,), are known; 8 x n x d bytes while it runs."""
    known = vectors[is_known].astype(np.float64)
    known -= known.mean(axis=0) if len(known) else 0.0
    centered = np.zeros(vectors.shape, np.float32)
    centered[is_known] = known
    return Centered(centered, known.T @ known / max(len(known), 1))


def deviations_of_products(queries: Floats, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard deviation of each query's products with the items of that covariance, (q,); a row's own bits."""
    return _deviations(kernel_input(queries, np.float32), kernel_input(covariance, np.float64))


@compiled
def _deviations(queries: Floats, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    found, dims = np.empty(queries.shape[0]), queries.shape[1]
    for query in range(queries.shape[0]):
        variance = 0.0
        for first in range(dims):
            if queries[query, first] != 0.0:
                product = 0.0
                for second in range(dims):
                    product += covariance[first, second] * queries[query, second]
                variance += queries[query, first] * product
        found[query] = np.sqrt(max(variance, 0.0))
    return found


def inverse_deviations(queries: Floats, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 over the standard deviation of each query's products, (q,); 0 where all items score the same."""
    deviations = deviations_of_products(queries, covariance)
    return np.where(deviations > 0.0, 1.0 / np.where(deviations > 0.0, deviations, 1.0), 0.0)


def scaled_queries(queries: Floats, factors: NDArray[np.float64]) -> Floats:
    """Queries (q, d) times factors (q,)."""
    scaled: Floats = (queries * factors[:, None]).astype(np.float32)
    return scaled


def add_standardised(
    totals: Floats, scores: Floats, places: NDArray[np.int32], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add scores (q, c) to the columns `places`, (c,), of totals (q, n), less their mean, deviating by `weights`, (q,).

    A place of -1 is none, and counts in the mean and deviation. Nothing is added where all scores of a row are the
    same. Gives the means and 1 over the deviations, (q,).
    """
    means, inverses = np.zeros(len(scores)), np.zeros(len(scores))
    arrays = kernel_input(places, np.int32), kernel_input(weights, np.float64)
    _add_standardised(totals, scores, *arrays, means, inverses)
    return means, inverses


@compiled
def _add_standardised(
    totals: Floats,
    scores: Floats,
    places: NDArray[np.int32],
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    inverses: NDArray[np.float64],
) -> None:
    count = places.size
    for row in range(scores.shape[0]):
        mean = 0.0
        for place in range(count):
            mean += np.float64(scores[row, place])
        mean /= max(count, 1)
        variance = 0.0
        for place in range(count):
            variance += (scores[row, place] - mean) * (scores[row, place] - mean)
        deviation = np.sqrt(variance / max(count, 1))
        means[row] = mean
        if not deviation > 0.0:
            continue
        inverses[row] = 1.0 / deviation
        if weights[row] == 0.0:
            continue
        scale = weights[row] / deviation
        for place in range(count):
            if places[place] >= 0:
                totals[row, places[place]] += np.float32((scores[row, place] - mean) * scale)
