import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from recsys_spark.kernels.stacking import (
    LEAST_LISTS,
    PRIOR_USERS,
    SOFTNESS,
    CandidateLists,
    cross_fitted_ndcgs,
    learn_weights,
    list_ndcgs,
    rank_weights,
    weights_by_segment,
)


def random_lists(seed: int, n_lists: int, n_components: int, signal: float = 1.0) -> CandidateLists:
    """Lists of 3 to 12 candidates; the first component tells the relevant ones, the others are noise."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 13, n_lists)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    scores = random.standard_normal((indptr[-1], n_components)).astype(np.float32)
    is_relevant = random.random(indptr[-1]) < 1 / (1 + np.exp(2 - 2 * signal * scores[:, 0]))
    found = np.array([is_relevant[indptr[row] : indptr[row + 1]].sum() for row in range(n_lists)])
    return CandidateLists(indptr, scores, is_relevant, found + random.integers(0, 2, n_lists))


def loss_of(lists: CandidateLists, weights: np.ndarray) -> float:
    """The mean of the relevant candidates' -log softmax, list by list."""
    losses = []
    for row in range(lists.n_lists):
        span = slice(lists.indptr[row], lists.indptr[row + 1])
        if (is_relevant := lists.is_relevant[span]).any():
            losses.append(-log_softmax(lists.scores[span].astype(float) @ weights)[is_relevant].mean())
    return float(np.mean(losses))


def test_no_weights_nearby_are_likelier() -> None:
    lists = random_lists(0, 400, 3)
    weights = learn_weights(lists)
    assert weights[0] > 5 * weights[1:].max()
    least = loss_of(lists, weights)
    for place in range(3):
        for step in (-0.05, 0.05):
            other = weights.copy()
            other[place] = max(0.0, other[place] + step)
            assert loss_of(lists, other) >= least - 1e-6


def test_a_component_that_misleads_gets_no_weight() -> None:
    lists = random_lists(1, 400, 2)
    noise = lists.scores[:, 1]
    lists.scores[:, 1] = noise - 2 * lists.is_relevant  # low for what is right
    weights = learn_weights(lists)
    assert weights[0] > 0
    assert weights[1] == 0
    assert loss_of(lists, weights + np.array([0, 0.05])) > loss_of(lists, weights)


def test_few_lists_stay_near_the_weights_given() -> None:
    near = np.array([0.0, 2.0])
    few, many = (rank_weights(random_lists(2, count, 2), 5, near) for count in (3, 3_000))
    few, many = few / few.sum(), many / many.sum()
    assert np.linalg.norm(few - near / 2) < 0.2
    assert many[0] > many[1]


def test_without_a_relevant_candidate_all_weigh_the_same() -> None:
    lists = random_lists(3, 5, 2)
    none = CandidateLists(lists.indptr, lists.scores, np.zeros(len(lists.scores), bool), lists.n_relevant)
    np.testing.assert_array_equal(learn_weights(none), [0.5, 0.5])
    nobody = CandidateLists(np.zeros(1, np.int64), lists.scores[:0], none.is_relevant[:0], lists.n_relevant[:0])
    np.testing.assert_array_equal(learn_weights(nobody), [0.5, 0.5])
    assert list_ndcgs(nobody, np.zeros(0), 10).size == 0


@given(seed=st.integers(0, 1000), k=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_ndcg_is_that_of_each_list_sorted(seed: int, k: int) -> None:
    lists = random_lists(seed, 4, 1)
    sums = np.round(lists.scores[:, 0])  # ties
    for row, found in enumerate(list_ndcgs(lists, sums, k)):
        span = slice(lists.indptr[row], lists.indptr[row + 1])
        ranked = sorted(range(span.stop - span.start), key=lambda place: (-sums[span][place], place))
        gain = sum(
            1 / math.log2(rank + 1) for rank, place in enumerate(ranked[:k], 1) if lists.is_relevant[span][place]
        )
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, lists.n_relevant[row]) + 1))
        assert found == pytest.approx(gain / ideal if ideal else 0.0)


def test_lists_can_be_chosen() -> None:
    lists = random_lists(5, 6, 2)
    some = lists.some(np.array([True, False, False, True, False, True]))
    np.testing.assert_array_equal(some.n_relevant, lists.n_relevant[[0, 3, 5]])
    np.testing.assert_array_equal(some.scores[some.indptr[1] : some.indptr[2]], lists.scores[slice(*lists.indptr[3:5])])


def smooth_ndcg(lists: CandidateLists, weights: np.ndarray, k: int) -> float:
    """The mean of NDCG@k with smooth ranks, candidate by candidate."""
    found = []
    for row in range(lists.n_lists):
        span = slice(lists.indptr[row], lists.indptr[row + 1])
        sums, gain = lists.scores[span].astype(float) @ weights, 0.0
        for place in np.flatnonzero(lists.is_relevant[span]):
            rank = expit((np.delete(sums, place) - sums[place]) / SOFTNESS).sum()
            gain += expit(k - 0.5 - rank) / math.log2(rank + 2)
        found.append(gain / sum(1 / math.log2(rank + 2) for rank in range(max(1, min(k, lists.n_relevant[row])))))
    return float(np.mean(found))


@given(seed=st.integers(0, 1000), k=st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_no_weights_nearby_have_a_higher_smooth_ndcg(seed: int, k: int) -> None:
    lists = random_lists(seed, 400, 3)
    likely, found = (weights / weights.sum() for weights in (learn_weights(lists), rank_weights(lists, k)))

    def worth(weights: np.ndarray) -> float:
        return smooth_ndcg(lists, weights, k) - PRIOR_USERS / lists.n_lists * np.square(weights - likely).sum() / 2

    best = worth(found)
    assert best >= worth(likely) - 1e-6
    for gives in range(3):
        for takes in range(3):
            moved = found.copy()
            step = min(0.02, moved[gives])
            moved[gives] -= step
            moved[takes] += step
            assert worth(moved) <= best + 1e-5


def test_what_is_far_below_the_head_costs_likelihood_but_no_ndcg() -> None:
    random, n_lists, each = np.random.default_rng(8), 3000, 20
    is_relevant = np.zeros((n_lists, each), bool)
    is_relevant[:, 0] = True
    scores = random.standard_normal((n_lists, each, 2)) + is_relevant[:, :, None] * np.array([2.0, 1.0])
    scores[::10, 0, 0] = -10.0  # the better component is wrong by far, of one in ten
    indptr = np.arange(0, n_lists * each + 1, each)
    lists = CandidateLists(
        indptr, scores.reshape(-1, 2).astype(np.float32), is_relevant.ravel(), np.ones(n_lists, np.int64)
    )
    likely, ranked = learn_weights(lists), rank_weights(lists, 1)
    heads = [list_ndcgs(lists, lists.scores @ weights, 1).mean() for weights in (likely, ranked)]
    assert heads[1] > heads[0] + 0.1
    assert 1.5 < ranked[0] / ranked[1] < 3
    assert loss_of(lists, ranked) <= min(loss_of(lists, ranked * scale) for scale in (0.8, 1.25))


def test_lists_without_a_candidate_count_as_without_a_find() -> None:
    lists = random_lists(9, 300, 2)
    n_relevant = np.ones(2 * lists.n_lists + 1, np.int64)
    n_relevant[1::2] = lists.n_relevant  # between the lists, before and after them are empty ones
    with_empty = CandidateLists(np.repeat(lists.indptr, 2), lists.scores, lists.is_relevant, n_relevant)
    near = np.array([0.5, 0.5])
    # The mean NDCG is lower in proportion, and so is the pull.
    np.testing.assert_allclose(rank_weights(with_empty, 3, near), rank_weights(lists, 3, near), atol=1e-3)


def test_one_component_has_its_likeliest_scale() -> None:
    lists = random_lists(9, 300, 1)
    np.testing.assert_allclose(rank_weights(lists, 3), learn_weights(lists), rtol=1e-6)


def test_segments_have_weights_of_their_own_where_they_are_large() -> None:
    first, second = (random_lists(seed, 2 * LEAST_LISTS, 2) for seed in (1, 2))
    turned = first.scores[:, ::-1]  # the second component is the one that tells, in the first segment
    lists = CandidateLists(
        np.concatenate([first.indptr, first.indptr[-1] + second.indptr[1:]]),
        np.concatenate([turned, second.scores]),
        np.concatenate([first.is_relevant, second.is_relevant]),
        np.concatenate([first.n_relevant, second.n_relevant]),
    )
    numbers = np.repeat([0, 1], 2 * LEAST_LISTS)
    weights = weights_by_segment(lists, numbers, 3, 5)
    assert weights[0, 1] > 2 * weights[0, 0]
    assert weights[1, 0] > 2 * weights[1, 1]
    np.testing.assert_array_equal(weights[2], rank_weights(lists, 5))
    alike, by_segment = cross_fitted_ndcgs(lists, numbers, 3, 5)
    assert by_segment.mean() > alike.mean() + 0.02
