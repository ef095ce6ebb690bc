import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.blending import (
    add_standardised,
    center_vectors,
    deviations_of_products,
    inverse_deviations,
    scaled_queries,
)

SEEDS = st.integers(0, 10_000)


@given(seed=SEEDS, n_items=st.integers(1, 9), dims=st.integers(1, 5), n_queries=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_scaled_products_have_mean_0_and_deviate_by_the_weights(
    seed: int, n_items: int, dims: int, n_queries: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n_items, dims)).astype(np.float32)
    is_known = random.random(n_items) < 0.7
    queries = random.standard_normal((n_queries, dims)).astype(np.float32)
    weights = random.random(n_queries) * 3
    centered = center_vectors(vectors, is_known)
    products = scaled_queries(queries, weights * inverse_deviations(queries, centered.covariance)).astype(
        float
    ) @ centered.vectors.T.astype(float)
    np.testing.assert_array_equal(products[:, ~is_known], 0)
    known = products[:, is_known]
    if is_known.sum() > dims:  # else all may score the same but for rounding
        np.testing.assert_allclose(known.mean(axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(known.std(axis=1), weights, rtol=1e-4)


def test_a_row_has_the_same_bits_whatever_stands_beside_it() -> None:
    random = np.random.default_rng(1)
    queries = random.standard_normal((50, 7)).astype(np.float32)
    covariance = np.cov(random.standard_normal((7, 30)))
    whole = deviations_of_products(queries, covariance)
    np.testing.assert_array_equal([deviations_of_products(queries[[row]], covariance)[0] for row in range(50)], whole)


def test_queries_of_nothing_and_items_all_alike_score_0() -> None:
    alike = np.ones((4, 2), np.float32)
    centered = center_vectors(alike, np.ones(4, bool))
    queries = np.array([[0, 0], [3, -1]], np.float32)
    np.testing.assert_array_equal(scaled_queries(queries, inverse_deviations(queries, centered.covariance)), 0)
    unknown = center_vectors(alike, np.zeros(4, bool))
    np.testing.assert_array_equal(unknown.vectors, 0)
    np.testing.assert_array_equal(scaled_queries(queries, inverse_deviations(queries, unknown.covariance)), 0)


@given(seed=SEEDS, count=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_standardised_scores_are_added_to_their_places(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (3, count)).astype(np.float32)
    places = random.permutation(8)[:count].astype(np.int32)
    weights = np.array([0.0, 1.0, 2.5])
    totals = random.standard_normal((3, 8)).astype(np.float32)
    expected = totals.astype(float)
    for row in range(3):
        deviation = scores[row].std() if count else 0.0
        if deviation > 0:
            expected[row, places] += weights[row] * (scores[row] - scores[row].mean()) / deviation
    means, inverses = add_standardised(totals, scores, places, weights)
    if count:
        np.testing.assert_allclose(means, scores.mean(axis=1), atol=1e-6)
        deviations = scores.std(axis=1)
        np.testing.assert_allclose(inverses, [1 / each if each > 0 else 0 for each in deviations], rtol=1e-6)
    np.testing.assert_allclose(totals, expected, atol=1e-5)
