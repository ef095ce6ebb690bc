"""One space for alternating least squares over whole data, of the project and of other libraries.

What `ials` minimises, sum_seen (1 - s)^2 + w sum_all s^2 + l2 sum_rows (n + w m) |x|^2, a row having n of the m rows of
the other side, is, divided by w, nearly what the others minimise. Their penalty is the same for all rows, or a multiple
of n; and a seen pair's best score is their 1, where that of `ials` is 1 / (1 + w), which for theirs is as if the
penalty was 1 + w times smaller. So settings of `ials` say theirs, too, nearly enough to search in one space: in terms
of their own a penalty is good only beside the right weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from benchmarks.peers.contender import Settings
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.alternating import balanced_weight
from recsys_spark.models.interactions import TrainingPairs, select_trained

DEFAULTS = {"embedding_dim": ModelSettings().embedding_dim, "unobserved_share": 1.0, "l2": ModelSettings().l2_penalty}
"""Of `ials`. The weight of unobserved pairs is a multiple of its default, which depends on the data."""


def space_up_to(dims: int) -> dict[str, BaseDistribution]:
    """With so many dimensions at most."""
    return {
        "embedding_dim": IntDistribution(16, dims, log=True),
        "unobserved_share": FloatDistribution(0.2, 5.0, log=True),
        "l2": FloatDistribution(0.001, 0.05, log=True),
    }


def weight_of(pairs: TrainingPairs, settings: Settings) -> float:
    """That of any pair beside the 1 of a seen one."""
    return float(settings["unobserved_share"] * balanced_weight(select_trained(pairs, 1, 1).pairs))


class Terms(NamedTuple):
    """What a seen pair weighs beside the 1 of any, the penalty of a row, and that for each of its pairs."""

    extra: float
    of_row: float
    of_pair: float


def terms_of(pairs: TrainingPairs, settings: Settings) -> Terms:
    """Penalties are those of a mean row: the geometric mean of that of users and that of items."""
    seen, weight = select_trained(pairs, 1, 1).pairs, weight_of(pairs, settings)
    shape = np.array([seen.n_users, seen.n_items])
    counts = len(seen) / shape
    penalties = settings["l2"] * (counts / weight + shape[::-1])
    of_row, of_pair = (float(np.sqrt(each.prod())) for each in (penalties, penalties / counts))
    return Terms(1.0 / weight, of_row, of_pair)
