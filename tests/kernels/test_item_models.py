import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_spark.kernels import item_models
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.item_models import ease_weights, graph_filter_weights, score_by_items
from tests.kernels.cases import random_rows


def pattern_of(rows: CsrRows) -> np.ndarray:
    pattern = np.zeros((rows.n_rows, rows.n_columns))
    pattern[np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr)), rows.indices] = 1
    return pattern


@given(
    seed=st.integers(0, 99),
    n_users=st.integers(0, 12),
    n_items=st.integers(1, 12),
    l2=st.sampled_from([0.5, 3.0, 100.0]),
    strip=st.integers(1, 13),
)
@settings(max_examples=80, deadline=None)
def test_weights_minimise_the_loss_column_by_column(
    seed: int, n_users: int, n_items: int, l2: float, strip: int
) -> None:
    """Each column is a ridge regression on the other items, solved here by itself; with few users and with many."""
    rows = random_rows(seed, n_users, n_items, 0.4, "ones")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_models, "_STRIP", strip)
        weights = ease_weights(rows, l2)
    pattern, expected = pattern_of(rows), np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.delete(pattern, item, axis=1)
        solved = np.linalg.solve(others.T @ others + l2 * np.eye(n_items - 1), others.T @ pattern[:, item])
        expected[np.arange(n_items) != item, item] = solved
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_no_items_and_items_nobody_has() -> None:
    nothing = CsrRows(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
    assert ease_weights(nothing, 1.0).shape == (0, 0)
    assert score_by_items(nothing, np.zeros((0, 0), np.float32)).shape == (2, 0)
    unknown = CsrRows(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 4)
    np.testing.assert_array_equal(ease_weights(unknown, 1.0), np.zeros((4, 4)))


def test_scores_are_sums_of_the_weights_of_a_rows_items() -> None:
    rows = random_rows(3, 20, 7, 0.3, "ones")
    halves = CsrRows(rows.indptr, rows.indices, rows.values / 2, rows.n_columns)
    weights = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    scores = score_by_items(rows, weights)
    np.testing.assert_allclose(scores, pattern_of(rows) @ weights, atol=1e-5)
    np.testing.assert_allclose(score_by_items(halves, weights), scores / 2, atol=1e-5)
    parts = [score_by_items(rows.slice_rows(start, start + 4), weights) for start in range(0, 20, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), scores, err_msg="a row's bits depend on the row alone")


def test_what_cannot_be_is_refused() -> None:
    rows = random_rows(3, 4, 7, 0.3, "ones")
    with pytest.raises(ValueError, match="l2 must be above 0, got 0"):
        ease_weights(rows, 0)
    with pytest.raises(ValueError, match="7 columns, but there are weights of 6 items"):
        score_by_items(rows, np.ones((6, 6), np.float32))


@given(seed=st.integers(0, 99), n_items=st.integers(2, 9), dims=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_graph_filter_is_that_of_the_paper(seed: int, n_items: int, dims: int) -> None:
    """By a dense singular value decomposition; where singular values are equal, their vectors are no single ones."""
    rows = random_rows(seed, 7, n_items, 0.5, "ones")
    pattern = pattern_of(rows)
    of_users, of_items = np.maximum(pattern.sum(axis=1), 1), np.maximum(pattern.sum(axis=0), 1)
    normalised = pattern / np.sqrt(of_users)[:, None] / np.sqrt(of_items)
    _, values, vectors = np.linalg.svd(normalised)
    known = min(dims, min(pattern.shape) - 1)
    assume(known == 0 or values[known - 1] - values[known] > 1e-3)
    low_pass = (vectors[:known].T / np.sqrt(of_items)[:, None]) @ (vectors[:known] * np.sqrt(of_items))
    found = graph_filter_weights(rows, dims, 0.3, seed)
    assert found.dtype == np.float32
    if pattern.any():
        np.testing.assert_allclose(found, normalised.T @ normalised + 0.3 * low_pass, atol=1e-4)


def test_the_graph_filter_of_nothing_is_0() -> None:
    nothing = CsrRows(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 4)
    np.testing.assert_array_equal(graph_filter_weights(nothing, 2, 0.3, 0), np.zeros((4, 4)))
    none = CsrRows(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
    assert graph_filter_weights(none, 2, 0.3, 0).shape == (0, 0)
