from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys_spark.metrics.confidence import GROUPS, GroupSums, mean_interval, paired_difference


def of_users(values: np.ndarray) -> GroupSums:
    """Users at positions 0, 1, 2 and so on."""
    groups = np.arange(len(values)) % GROUPS
    return GroupSums(np.bincount(groups, values, GROUPS), np.bincount(groups, minlength=GROUPS))


def test_the_interval_of_single_users_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).beta(0.5, 2, 400)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    low, high = mean_interval(of_users(values))
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.06 * width)
    assert high == pytest.approx(theirs.high, abs=0.06 * width)


def test_groups_of_many_users_give_the_interval_of_users() -> None:
    values = np.random.default_rng(3).beta(0.5, 2, 50_000)
    error = values.std() / np.sqrt(len(values))
    low, high = mean_interval(of_users(values))
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.08)
    assert low < values.mean() < high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(4)
    found = [mean_interval(of_users(random.exponential(1.0, 300))) for _ in range(200)]
    assert 0.90 <= np.mean([low <= 1.0 <= high for low, high in found]) <= 0.99


def test_the_paired_test_of_single_users_is_that_of_scipy() -> None:
    random = np.random.default_rng(5)
    one = random.random(700)
    other = one + random.normal(0.004, 0.05, 700)
    found, theirs = paired_difference(of_users(one), of_users(other)), stats.ttest_rel(one, other)
    assert found.mean == pytest.approx(np.mean(one - other))
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    interval = theirs.confidence_interval()
    assert found.low == pytest.approx(interval.low, abs=4e-4)
    assert found.high == pytest.approx(interval.high, abs=4e-4)


def test_groups_of_many_users_give_nearly_the_p_value_of_users() -> None:
    random = np.random.default_rng(6)
    one = random.random(30_000)
    other = one + random.normal(0.0012, 0.1, 30_000)
    theirs = stats.ttest_rel(one, other)
    found = paired_difference(of_users(one), of_users(other))
    assert stats.norm.isf(found.p_value / 2) == pytest.approx(abs(theirs.statistic), rel=0.1)


def test_models_that_are_equally_good_seldom_seem_different() -> None:
    random = np.random.default_rng(7)
    p_values = []
    for _ in range(200):
        values = random.random((2, 5_000))
        p_values.append(paired_difference(of_users(values[0]), of_users(values[1])).p_value)
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_the_same_model_is_not_ahead_of_itself() -> None:
    sums = of_users(np.random.default_rng(8).random(50))
    assert paired_difference(sums, sums) == (0.0, 0.0, 0.0, 1.0)


def test_without_a_user_nothing_is_known() -> None:
    nobody = of_users(np.zeros(0))
    assert np.isnan([nobody.mean, *mean_interval(nobody)]).all()
    assert paired_difference(nobody, nobody) == (0.0, 0.0, 0.0, 1.0)


def test_one_user_proves_nothing() -> None:
    assert paired_difference(of_users(np.ones(1)), of_users(np.zeros(1))).p_value == 1.0


def test_different_users_are_refused() -> None:
    with pytest.raises(ValueError, match="the same users"):
        paired_difference(of_users(np.ones(3)), of_users(np.ones(4)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_the_interval_lies_within_the_values_and_around_the_mean(values: list[float]) -> None:
    low, high = mean_interval(of_users(np.array(values)))
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9
