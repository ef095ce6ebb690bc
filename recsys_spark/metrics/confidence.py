"""How sure a mean over users is, and whether one model is ahead of another, from sums over groups of users.

Users fall into groups by their position, which says nothing about them; a group stands for a user in what follows. With
no more users than groups that is the bootstrap, or the t test, of users themselves; with more of them the sums of a
group tell as much about the mean as its users would, and take no memory that grows with them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

GROUPS = 1_000
"""A user's group is his position modulo this."""

_RESAMPLES, _SEED = 2_000, 0
_TAILS = (0.025, 0.975)


class GroupSums(NamedTuple):
    """A metric's sums over the users of each group, and how many those are; both (groups,)."""

    totals: NDArray[np.float64]
    users: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Over the users; nan without one."""
        return float(self.totals.sum() / self.users.sum()) if self.users.any() else float("nan")


class Difference(NamedTuple):
    """How far a model is ahead of another in the mean of the same users: its 95 % interval, and the p value.

    `p_value` is two-sided: how often means of models that are equally good would differ as much.
    """

    mean: float
    low: float
    high: float
    p_value: float


def mean_interval(sums: GroupSums) -> tuple[float, float]:
    """The 95 % interval of the mean over users, by bootstrap percentiles of 2,000 resamples; nan without a user.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7(1), 1979. Memory: 48 MB.
    """
    known = sums.users > 0
    if not known.any():
        return float("nan"), float("nan")
    low, high = np.quantile(_resampled(sums.totals[known], sums.users[known]), _TAILS)
    return float(low), float(high)


def paired_difference(one: GroupSums, other: GroupSums) -> Difference:
    """How far one model is ahead of the other, by a paired t test and the bootstrap of the same groups.

    Raises ValueError when they were measured on different users.
    """
    if one.users.shape != other.users.shape or (one.users != other.users).any():
        raise ValueError("both models must be measured on the same users, in the same groups")
    known = one.users > 0
    gains, users = (one.totals - other.totals)[known], one.users[known]
    if not gains.any():
        return Difference(0.0, 0.0, 0.0, 1.0)
    mean = float(gains.sum() / users.sum())
    low, high = np.quantile(_resampled(gains, users), _TAILS)
    return Difference(mean, float(low), float(high), _p_value(gains - mean * users, gains.sum()))


def _p_value(residuals: NDArray[np.float64], total: float) -> float:
    """Of a total of groups, by the t distribution."""
    groups = len(residuals)
    error = float(np.sqrt(np.square(residuals).sum() * groups / max(groups - 1, 1)))
    if groups < 2 or error == 0.0:
        return 1.0 if groups < 2 else 0.0
    return float(2 * stats.t.sf(abs(total) / error, groups - 1))


def _resampled(totals: NDArray[np.float64], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means over groups that are drawn with replacement, (resamples,)."""
    drawn = _draws(len(totals))
    means: NDArray[np.float64] = (drawn @ totals) / (drawn @ users)
    return means


@lru_cache(maxsize=1)  # most metrics are of the same groups
def _draws(groups: int) -> NDArray[np.float64]:
    """How often each group is drawn, (resamples, groups)."""
    drawn = np.random.default_rng(_SEED).integers(groups, size=(_RESAMPLES, groups))
    drawn += np.arange(_RESAMPLES)[:, None] * groups
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)
