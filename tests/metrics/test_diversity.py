from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.metrics.diversity import intra_list_diversity

VECTORS = np.array([(1, 0), (0, 1), (0.6, 0.8), (-1, 0), (0, 0), (1, 0)], np.float32)


def test_by_hand() -> None:
    lists = np.array([[0, 1, 2], [0, 5, 3], [4, 0, -1], [-1, -1, -1]])
    metrics = intra_list_diversity(lists, VECTORS, [1, 2, 3])
    # Cosines 0, .6 and .8; 1, -1 and -1. Nothing is known of item 4.
    assert metrics["intra_list_diversity@2"].tolist() == pytest.approx([1.0, 0.0, np.nan, np.nan], nan_ok=True)
    means = [1 - 1.4 / 3, 1 + 1 / 3, np.nan, np.nan]
    assert metrics["intra_list_diversity@3"].tolist() == pytest.approx(means, nan_ok=True)
    assert np.isnan(metrics["intra_list_diversity@1"]).all()


@given(st.lists(st.permutations(range(-1, len(VECTORS))), max_size=5))
def test_equals_the_mean_over_all_pairs(lists: list[list[int]]) -> None:
    padded = [[item for item in each if item >= 0][: each.index(-1)] for each in lists]
    recommended = np.array([each + [-1] * (len(VECTORS) - len(each)) for each in padded], int).reshape(-1, len(VECTORS))
    metrics = intra_list_diversity(recommended, VECTORS, range(1, len(VECTORS) + 1))
    for k in range(1, len(VECTORS) + 1):
        expected = [
            np.mean([1 - VECTORS[a] @ VECTORS[b] for a, b in combinations(items[:k], 2) if 4 not in (a, b)] or [np.nan])
            for items in padded
        ]
        np.testing.assert_allclose(metrics[f"intra_list_diversity@{k}"], expected, atol=1e-6)


def test_lengths_beyond_the_lists_are_refused() -> None:
    for ks in ([0, 1], [3]):
        with pytest.raises(ValueError, match="ks must be within 1 to 2, the width of the lists"):
            intra_list_diversity(np.zeros((1, 2), int), VECTORS, ks)
