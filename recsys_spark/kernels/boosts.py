"""Factors of scores: what is boosted moves up in every list, what is demoted down, whatever the sign of the score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import Real, compiled, kernel_input

MOST_BOOST = 1000.0
"""Factors that are asked for lie between 1 over it and it."""


class Factors(NamedTuple):
    """What scores above 0 are multiplied by and what others are, float32 (n,): a factor and 1 over it.

    (0,) each for none. `largest`: the largest factor; `most`: the largest of both arrays, at least 1.
    """

    ups: NDArray[np.float32]
    downs: NDArray[np.float32]
    largest: float
    most: float


def factors_of(factors: NDArray[np.float32] | None, n_items: int) -> Factors:
    """As kernels take the factors of some items, (n,), or None.

    Raises ValueError for another shape, or a factor that is not above 0 and finite.
    """
    if factors is None:
        nothing = kernel_input(np.empty(0, np.float32), np.float32)
        return Factors(nothing, nothing, 1.0, 1.0)
    if factors.shape != (n_items,):
        raise ValueError(f"{n_items} items but factors {factors.shape}")
    is_wrong = ~((factors > 0) & np.isfinite(factors))
    if is_wrong.any():
        place = int(np.argmax(is_wrong))
        raise ValueError(f"factor {place} must be above 0 and finite, got {factors[place]}")
    ups = kernel_input(factors, np.float32)
    downs = kernel_input(1 / ups, np.float32)
    largest, smallest = (float(reduce(ups, initial=1.0)) for reduce in (np.max, np.min))
    return Factors(ups, downs, float(ups.max(initial=0.0)) or 1.0, max(largest, 1 / smallest))


@compiled
def boosted(score: Real, factor: Real) -> float:
    """A score times a factor, or divided by it where it is below 0: a factor above 1 never lowers it."""
    return float(score * factor if score > 0.0 else score / factor)


def boost(scores: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores and their factors of one shape, as `boosted`; -inf, of what is no item, stays."""
    wide, by = scores.astype(np.float64), factors.astype(np.float64)
    return np.where(wide > 0, wide * by, wide / by).astype(np.float32)


def without_boost(scores: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What scores were before `boost`, to the last bit but one."""
    return boost(scores, (1 / factors.astype(np.float64)).astype(np.float32))
