"""Predictions of single pairs against what was observed: errors of ratings, and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP, _FIRST, _SECOND = (np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_items(users: NDArray[np.int32], samples: int, n_items: int, seed: int) -> NDArray[np.int64]:
    """So many of the items for each user, (q, samples), some perhaps twice: a function of the user and the seed.

    By SplitMix64 of Steele et al., "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        state = _mixed(users.astype(np.uint64) + np.uint64(seed) * _STEP)[:, None]
        drawn = _mixed(state + np.arange(1, samples + 1, dtype=np.uint64) * _STEP)
    return (drawn % np.uint64(max(n_items, 1))).astype(np.int64)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def share_below(
    scores: NDArray[np.float32], rows: NDArray[np.intp], others: NDArray[np.float32], counts: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Of each score, (p,), the share of the others in its row, (q, s), that are below it, ties by half.

    `counts` (q, s) are those that count; nan without one. The mean over a user's held-out items is his area under the
    ROC curve, weighted by them RecBole's `GAUC`. Memory: 10 bytes x p x s.
    """
    of_score, is_counted = others[rows], counts[rows]
    below = ((of_score < scores[:, None]) & is_counted).sum(axis=1)
    ties = ((of_score == scores[:, None]) & is_counted).sum(axis=1)
    total = is_counted.sum(axis=1)
    shares = np.full(len(scores), np.nan)
    np.divide(below + 0.5 * ties, total, out=shares, where=total > 0)
    return shares
