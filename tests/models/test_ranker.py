from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.blend_sections import RankerSettings
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.network import network_scores
from recsys_spark.kernels.stacking import CandidateLists, list_ndcgs
from recsys_spark.models.ranker import RankingLists, fit_ranker

N_LISTS, LONGEST = 300, 9
SETTINGS = RankerSettings(enabled=True, hidden_units=(8, 4), epochs=25, learning_rate=0.02)


def lists_with_a_bend(seed: int) -> tuple[RankingLists, CandidateLists]:
    """Relevant is who is near 0 in the second feature, which no weighted sum can tell; the blend knows the first."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, LONGEST + 1, N_LISTS)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    features = random.standard_normal((indptr[-1], 3)).astype(np.float32)
    is_relevant = random.random(indptr[-1]) < np.where(np.abs(features[:, 1]) < 0.4, 0.7, 0.05)
    sums = features[:, 0] / 4
    counts = np.add.reduceat(is_relevant, indptr[:-1])
    return RankingLists(indptr, features, sums, is_relevant), CandidateLists(indptr, features, is_relevant, counts)


def test_it_learns_what_no_weights_can() -> None:
    lists, _ = lists_with_a_bend(0)
    network, losses = fit_ranker(lists, np.arange(N_LISTS) % 4 > 0, SETTINGS, seed=1)
    fresh, other = lists_with_a_bend(5)
    ranked = list_ndcgs(other, network_scores(fresh.features, fresh.sums, network), 3).mean()
    assert ranked > list_ndcgs(other, fresh.sums, 3).mean() + 0.15
    assert min(losses) < losses[0]


def test_the_same_seed_gives_the_same_bits() -> None:
    lists, _ = lists_with_a_bend(0)
    settings = SETTINGS.model_copy(update={"epochs": 2})
    first, again, other = (fit_ranker(lists, np.arange(N_LISTS) % 4 > 0, settings, seed)[0] for seed in (1, 1, 2))
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(first.first, other.first)


def test_batches_hold_scaled_features_and_shares() -> None:
    indptr = np.array([0, 2, 2, 5], np.int64)
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    is_relevant = np.array([True, True, False, False, True])
    lists = RankingLists(indptr, features, np.arange(5, dtype=np.float32), is_relevant)
    assert lists.with_relevant().tolist() == [0, 2]
    (rows, sums), wanted = lists.batch(np.array([0, 2]), np.ones(2, np.float32), np.full(2, 2, np.float32))
    np.testing.assert_array_equal(rows[0], [[-0.5, 0], [0.5, 1], [0, 0]])
    np.testing.assert_array_equal(sums[1], [2, 3, 4])
    assert sums[0, 2] < -1e8
    np.testing.assert_array_equal(wanted, [[0.5, 0.5, 0], [0, 0, 1]])


def test_a_rate_that_is_too_high_is_named() -> None:
    lists, _ = lists_with_a_bend(0)
    lists.features[:, 2] = np.nan
    with pytest.raises(RecsysError, match=r"ranker diverged in epoch 1: lower ranker\.learning_rate"):
        fit_ranker(lists, np.arange(N_LISTS) % 4 > 0, SETTINGS, seed=1)
