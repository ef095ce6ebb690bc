"""Losses: from the scores of a batch to one loss a sample.

A new loss is a function here and its name in `LOSSES` and in `ModelSettings.loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recsys_spark.models.backend import ops

Tensor = Any


@dataclass(frozen=True)
class Scores:
    """What a loss sees of a batch of b pairs with k sampled negatives each.

    Shapes: `positive` (b,), `negative` (b, k), `is_negative` (b, k) 1.0 where the sampled item is a true negative
    and 0.0 where it must not count, `rating` (b,).
    """

    positive: Tensor
    negative: Tensor
    is_negative: Tensor
    rating: Tensor


def mse(scores: Scores) -> Tensor:
    """Squared error of the predicted rating, (b,)."""
    return ops.square(scores.rating - scores.positive)


def bpr(scores: Scores) -> Tensor:
    """-log sigmoid(positive - negative), mean over the negatives, (b,). Rendle et al., UAI 2009."""
    pairwise = ops.softplus(scores.negative - scores.positive[:, None])
    return _mean_of_negatives(pairwise, scores)


def bce(scores: Scores) -> Tensor:
    """-log sigmoid(positive) - log sigmoid(-negative), summed over the negatives, (b,). He et al., WWW 2017."""
    return ops.softplus(-scores.positive) + ops.sum(ops.softplus(scores.negative) * scores.is_negative, axis=-1)


def _mean_of_negatives(losses: Tensor, scores: Scores) -> Tensor:
    count = ops.maximum(ops.sum(scores.is_negative, axis=-1), 1.0)
    return ops.sum(losses * scores.is_negative, axis=-1) / count


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs: sampled negatives, or the mean rating as the offset of every score."""

    function: Callable[[Scores], Tensor]
    needs_negatives: bool


LOSSES = {
    "mse": Loss(mse, needs_negatives=False),
    "bpr": Loss(bpr, needs_negatives=True),
    "bce": Loss(bce, needs_negatives=True),
}
