"""Metrics of all lists together: cases computed by hand, and what holds for any lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.metrics.spread import TrainingCounts, spread_metrics


def counts(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_cases_computed_by_hand() -> None:
    """Three lists of two: (a, b), (a, c), (a, b), of four items with 8, 4, 2 and 1 training interactions of 8 users."""
    found = spread_metrics(counts(3, 2, 1, 0), TrainingCounts(counts(8, 4, 2, 1), 8))
    assert found == pytest.approx(
        {
            "item_coverage": 3 / 4,
            # sorted 0, 1, 2, 3 times -3, -1, 1, 3, over 4 items and 6 places
            "gini_index": (-1 + 2 + 9) / 24,
            "shannon_entropy": (1 / 2 * math.log(2) + 1 / 3 * math.log(3) + 1 / 6 * math.log(6)) / 3,
            "average_popularity": (3 * 8 + 2 * 4 + 1 * 2) / 6,
            "tail_percentage": 0.0,
            "novelty": (3 * 0 + 2 * 1 + 1 * 2) / 6,
        }
    )


def test_the_tail_are_the_rarest_tenth_of_the_trained_items() -> None:
    trained = counts(0, *range(20, 1, -1), 2, 9)  # 21 items, of which the two with 2 interactions are the tenth
    listed = np.ones(len(trained), np.int64)
    assert spread_metrics(listed, TrainingCounts(trained, 30))["tail_percentage"] == pytest.approx(2 / 22)
    fewer = counts(5, 1, 1)
    assert spread_metrics(counts(0, 1, 0), TrainingCounts(fewer, 5))["tail_percentage"] == 1.0, "the first of equals"
    assert spread_metrics(counts(0, 0, 1), TrainingCounts(fewer, 5))["tail_percentage"] == 0.0


def test_an_item_nobody_has_had_is_as_new_as_one_of_a_single_user() -> None:
    found = spread_metrics(counts(0, 4), TrainingCounts(counts(16, 0), 16))
    assert found["novelty"] == 4.0


def test_without_a_list_only_the_coverage_is_defined() -> None:
    assert spread_metrics(counts(0, 0), TrainingCounts(counts(1, 2), 2)) == {"item_coverage": 0.0}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any), st.integers(0, 2**32 - 1))
def test_bounds_and_what_does_not_matter(listed: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    trained = TrainingCounts(random.integers(0, 30, len(listed)), 30)
    found = spread_metrics(counts(*listed), trained)
    assert 0 < found["item_coverage"] <= 1
    assert -1e-12 <= found["gini_index"] < 1
    assert 0 <= found["tail_percentage"] <= 1 + 1e-12
    assert 0 <= found["novelty"] <= math.log2(30) + 1e-12
    different = np.count_nonzero(listed)
    assert -1e-12 <= found["shannon_entropy"] <= math.log(different) / different + 1e-12
    twice = spread_metrics(2 * counts(*listed), trained)
    assert twice == pytest.approx(found), "twice as many of the same lists spread as these do"
