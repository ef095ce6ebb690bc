"""Synthetic user-item matrices of the shape of well-known ones: how many ratings users have, how popular items are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.kernels.csr import CsrRows

STARS = np.arange(1, 11, dtype=np.float32) / 10  # ten steps of half a star, scaled to 0-1


def movielens_20m(n_users: int, seed: int = 0) -> CsrRows:
    """Users of MovieLens-20M: 27,000 items, 20 ratings and more, 144 on average.

    The r-th most popular item is rated by a share of about exp(-0.1 r^0.47) / 2 of the users, as in its statistics:
    49 % the first, 20 % the hundredth, 3.5 % the thousandth.
    """
    random = np.random.default_rng(seed)
    lengths = 20 + random.lognormal(4.05, 1.35, n_users).astype(np.int64).clip(0, 8_000)
    share = np.exp(-0.1033 * np.arange(1, 27_001) ** 0.469) / 2
    return _draw(random, lengths, share / (1 - share) ** 2)  # more weight in front, because repetitions are dropped


def shop(n_users: int, n_items: int = 200_000, seed: int = 0) -> CsrRows:
    """Users of a shop: 13 interactions on average, on many items."""
    random = np.random.default_rng(seed)
    lengths = 1 + random.lognormal(1.9, 1.0, n_users).astype(np.int64).clip(0, 500)
    popularity = 1.0 / (np.arange(n_items) + 100.0) ** 0.8
    return _draw(random, lengths, popularity)


def as_scipy(rows: CsrRows) -> sparse.csr_matrix:
    """The same rows for other libraries."""
    return sparse.csr_matrix((rows.values, rows.indices, rows.indptr), shape=(rows.n_rows, rows.n_columns))


def _draw(random: np.random.Generator, lengths: NDArray[np.int64], popularity: NDArray[np.float64]) -> CsrRows:
    """Rows of about these lengths: items drawn with replacement, repetitions dropped."""
    shuffled = random.permutation(popularity)
    drawn = np.searchsorted(np.cumsum(shuffled / shuffled.sum()), random.random(int(lengths.sum()))).clip(
        0, len(popularity) - 1
    )
    users = np.repeat(np.arange(len(lengths)), lengths)
    keys = np.unique(users * len(popularity) + drawn)
    indptr = np.searchsorted(keys, np.arange(len(lengths) + 1) * len(popularity)).astype(np.int64)
    values = random.choice(STARS, len(keys), p=np.array([1, 3, 2, 7, 5, 18, 12, 28, 9, 15]) / 100)
    return CsrRows(indptr, (keys % len(popularity)).astype(np.int32), values, len(popularity))
