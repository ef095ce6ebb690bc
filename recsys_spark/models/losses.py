"""Losses: from the scores of a batch to one loss a pair.

A new loss is a function here and its name in `PAIR_LOSSES` or in `objectives.build_objective`, and in `sections`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recsys_spark.models.backend import ops

Tensor = Any

_NEVER = -1e9  # a logit whose exponential is 0, and finite, because infinities less infinities are no numbers


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


def rating_bce(scores: Scores) -> Tensor:
    """Cross-entropy of the rating of 0-1, as a probability, and the logistic function of the score, (b,)."""
    return ops.softplus(scores.positive) - scores.rating * scores.positive


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
class SharedScores:
    """What a loss sees of b pairs of u users, against k items that all of them share.

    Shapes: `positive` (b,), `rows` (b,) which of the users a pair is of, `negative` (u, k), `is_negative` (u, k) 1.0 or
    0.0 as in `Scores`, `log_expected` (k,) the logarithm of how often each of the k is expected among them.
    """

    positive: Tensor
    rows: Tensor
    negative: Tensor
    is_negative: Tensor
    log_expected: Tensor


def softmax(scores: SharedScores, temperature: float) -> Tensor:
    """-log of the softmax of each positive among itself and the user's true negatives, (b,).

    A sampled negative stands for as many as it was likely to be drawn for, so that the expected sum over the sample
    is the sum over all. Bengio & Senecal, IEEE Trans. Neural Networks 19(4), 2008; Yi et al., RecSys 2019.
    """
    logits = scores.negative / temperature - scores.log_expected
    logits = ops.where(scores.is_negative > 0, logits, _NEVER)
    rivals, positive = ops.take(ops.logsumexp(logits, axis=-1), scores.rows), scores.positive / temperature
    return ops.softplus(rivals - positive)


def cosine_contrastive(scores: SharedScores, margin: float, negative_weight: float) -> Tensor:
    """1 - positive + weight x mean of the negatives' cosines above the margin, (b,). Mao et al., CIKM 2021."""
    above = ops.relu(scores.negative - margin) * scores.is_negative
    mean = ops.sum(above, axis=-1) / ops.maximum(ops.sum(scores.is_negative, axis=-1), 1.0)
    return 1.0 - scores.positive + negative_weight * ops.take(mean, scores.rows)


PAIR_LOSSES: dict[str, Callable[[Scores], Tensor]] = {
    "mse": mse,
    "rating_bce": rating_bce,
    "bpr": bpr,
    "bce": bce,
}
