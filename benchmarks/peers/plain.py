"""Models in a few lines of NumPy and SciPy, independent of the project's kernels: the oracles of the comparison."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution, IntDistribution
from scipy import linalg, sparse

from benchmarks.peers.contender import Contender, Fitted, Settings
from benchmarks.ranking import USERS_AT_ONCE, Floats, Scores
from recsys_spark.models.interactions import TrainingPairs

LARGE = 20_000
"""More users than this: EASE in float32, 3.6 GB for a matrix of 30,000 by 30,000, and half the time."""


def as_matrix(pairs: TrainingPairs) -> sparse.csr_matrix:
    """Ones where there are pairs, (users, items), float32."""
    ones = np.ones(len(pairs), np.float32)
    return sparse.csr_matrix((ones, (pairs.user_idx, pairs.item_idx)), shape=(pairs.n_users, pairs.n_items))


def by_vectors(users: Floats, items: Floats) -> Scores:
    """Products of vectors, (users, d) and (items, d)."""
    return lambda some: users[some] @ items.T


def popularity(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    """How many users have an item."""
    started = time.perf_counter()
    counts = np.bincount(pairs.item_idx, minlength=pairs.n_items).astype(np.float32)
    seconds = time.perf_counter() - started
    everybody = np.arange(pairs.n_users)
    return Fitted(lambda users: np.tile(counts, (len(everybody[users]), 1)), seconds)


def ease(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    """Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019."""
    matrix, started = as_matrix(pairs), time.perf_counter()
    if pairs.n_users <= LARGE:
        matrix = matrix.astype(np.float64)
    if pairs.n_items > pairs.n_users:
        return Fitted(ease_by_users(matrix, settings["l2"]), time.perf_counter() - started)
    weights = ease_by_items(matrix, settings["l2"])
    return Fitted(lambda users: as_floats(matrix[users] @ weights), time.perf_counter() - started)


def ease_by_items(matrix: sparse.csr_matrix, l2: float) -> NDArray[np.float64]:
    """The weights I - P / diag(P) with P = (X^T X + l2 I)^-1, (items, items)."""
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def ease_by_users(matrix: sparse.csr_matrix, l2: float) -> Scores:
    """The scores X - X P / diag(P), where items are more than users.

    By Woodbury's identity l2 P = I - X^T A X and X P = A X with A = (X X^T + l2 I)^-1, of users by users.
    """
    gram = (matrix @ matrix.T).toarray()
    gram[np.diag_indices_from(gram)] += l2
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False, assume_a="pos")
    products = (matrix.T @ inverse).T  # A X, as A is symmetric
    own = np.asarray(matrix.multiply(products).sum(axis=0)).ravel()
    shares = l2 / (1 - own)
    return lambda users: as_floats(matrix[users].toarray() - products[users] * shares)


def user_knn(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    """What the k users of the greatest cosine have, weighted by it; found exactly."""
    matrix, started = as_matrix(pairs), time.perf_counter()
    blocks = [
        nearest_users(matrix, slice(start, min(start + USERS_AT_ONCE, pairs.n_users)), **settings)
        for start in range(0, pairs.n_users, USERS_AT_ONCE)
    ]
    neighbors = sparse.csr_matrix(sparse.vstack(blocks))
    return Fitted(lambda users: as_floats((neighbors[users] @ matrix).toarray()), time.perf_counter() - started)


def nearest_users(matrix: sparse.csr_matrix, users: slice, k: int, shrinkage: float) -> sparse.csr_matrix:
    """Similarities u.v / (|u| |v| + shrinkage) of some users to their k nearest others, (some, users)."""
    norms = np.sqrt(np.asarray(matrix.sum(axis=1), np.float32).ravel())
    similarities = (matrix[users] @ matrix.T).toarray()
    similarities /= norms[users, None] * norms + np.float32(shrinkage) + np.float32(1e-9)
    rows = np.arange(len(similarities))
    similarities[rows, rows + users.start] = 0.0
    k = min(k, similarities.shape[1])
    nearest = np.argpartition(similarities, -k, axis=1)[:, -k:]
    values = np.take_along_axis(similarities, nearest, 1).ravel()
    indptr = np.arange(0, values.size + 1, k)
    return sparse.csr_matrix((values, nearest.ravel(), indptr), shape=similarities.shape)


def as_floats(scores: object) -> Floats:
    """As float32."""
    return np.asarray(scores, np.float32)


CONTENDERS = [
    Contender("peer:popularity", popularity),
    Contender("peer:ease", ease, {"l2": 250.0}, {"l2": FloatDistribution(10.0, 5000.0, log=True)}),
    Contender(
        "peer:user-knn",
        user_knn,
        {"k": 100, "shrinkage": 0.0},
        {"k": IntDistribution(10, 1000, log=True), "shrinkage": FloatDistribution(0.0, 100.0)},
    ),
]
"""`ease` and the nearest users start from RecBole's defaults of the same models."""
