"""Users' vectors as sums over their items: the sums are what the models score by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.kernels.attribution import (
    Attribution,
    even_attribution,
    least_squares_attribution,
    pooled_attribution,
)
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side, solve_rows
from recsys_spark.kernels.pooling import pool_rows, pool_weighted, unit_rows
from recsys_spark.kernels.reasons import largest_products
from tests.kernels.cases import random_rows

N_ROWS, N_ITEMS, DIMS = 7, 12, 4
ALL = np.tile(np.arange(N_ITEMS), (N_ROWS, 1))


def vectors_of(seed: int, n: int = N_ITEMS) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((n, DIMS)) / 2).astype(np.float32)


def ones_of(seed: int) -> CsrRows:
    return random_rows(seed, N_ROWS, N_ITEMS, 0.5, "ones")


def sums_of(found: Attribution, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return largest_products(found.rows, found.scales, vectors, vectors, ALL, 1).sums


@given(seed=st.integers(0, 99), weight=st.sampled_from([0.01, 0.3, 1.0]), l2=st.sampled_from([0.01, 1.0]))
@settings(max_examples=40, deadline=None)
def test_least_squares_add_up_to_the_scores(seed: int, weight: float, l2: float) -> None:
    rows, vectors, loss = ones_of(seed), vectors_of(seed), WholeDataLoss(weight, l2)
    fixed = fixed_side(vectors)
    users, _ = solve_rows(rows, fixed, weight, loss.penalties(rows))
    found = least_squares_attribution(rows, users @ fixed.axes, fixed.turned, fixed.diagonal, loss, N_ITEMS)
    np.testing.assert_allclose(sums_of(found, fixed.turned), users @ vectors.T, atol=2e-3, rtol=2e-3)


def test_least_squares_terms_add_up_as_those_of_the_paper_and_items_count_by_what_was_not_expected() -> None:
    rows, vectors, loss = ones_of(5), vectors_of(5), WholeDataLoss(0.1, 0.1)
    fixed = fixed_side(vectors)
    users, _ = solve_rows(rows, fixed, 0.1, loss.penalties(rows))
    found = least_squares_attribution(rows, users @ fixed.axes, fixed.turned, fixed.diagonal, loss, N_ITEMS)
    own = rows.indices[rows.indptr[0] : rows.indptr[1]]
    entries, penalty = vectors[own].astype(float), float(loss.penalties(rows)[0])
    matrix = 0.1 * vectors.T.astype(float) @ vectors + penalty * np.eye(DIMS) + entries.T @ entries
    of_paper = entries @ np.linalg.inv(matrix) @ vectors.T
    np.testing.assert_allclose(sums_of(found, fixed.turned)[0], of_paper.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.rows.values[: len(own)], 1 - entries @ users[0], atol=1e-5)


@given(seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_pooled_users_add_up_to_the_scores(seed: int) -> None:
    rows, vectors = ones_of(seed), vectors_of(seed)
    lengths = np.diff(rows.indptr)
    shares = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    found = pooled_attribution(rows, shares, vectors, is_unit=False)
    np.testing.assert_allclose(sums_of(found, vectors), pool_rows(rows, vectors) @ vectors.T, atol=1e-4)
    weights = np.random.default_rng(seed).random(rows.nnz).astype(np.float32)
    found = pooled_attribution(rows, weights, vectors, is_unit=True)
    units = unit_rows(pool_weighted(rows, weights, vectors))
    np.testing.assert_allclose(sums_of(found, vectors), units @ vectors.T, atol=1e-4)


@given(seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_free_users_get_the_multiple_nearest_to_the_scores_of_their_items(seed: int) -> None:
    rows, vectors, users = ones_of(seed), vectors_of(seed), vectors_of(seed + 1000, N_ROWS)
    fixed = fixed_side(vectors)
    found = even_attribution(rows, users @ fixed.axes, fixed.turned, fixed.diagonal, N_ITEMS)
    squares = vectors.T.astype(float) @ vectors / N_ITEMS
    metric = np.linalg.inv(squares + 0.1 * np.trace(squares) / DIMS * np.eye(DIMS))
    for row in range(N_ROWS):
        own = rows.indices[rows.indptr[row] : rows.indptr[row + 1]]
        alike = vectors.astype(float) @ metric @ vectors[own].sum(axis=0)
        if len(own):
            (factor,) = np.linalg.lstsq(alike[own][:, None], (vectors[own] @ users[row]).astype(float), rcond=None)[0]
            np.testing.assert_allclose(sums_of(found, fixed.turned)[row], factor * alike, atol=1e-3, rtol=1e-3)


def test_vectors_of_nothing_give_no_terms() -> None:
    rows, nothing = ones_of(1), np.zeros((N_ITEMS, DIMS), np.float32)
    users, fixed = np.zeros((N_ROWS, DIMS), np.float32), fixed_side(nothing)
    for found in (
        even_attribution(rows, users, fixed.turned, fixed.diagonal, N_ITEMS),
        pooled_attribution(rows, rows.values, nothing, is_unit=True),
    ):
        assert (sums_of(found, nothing) == 0).all()
    assert pytest.approx(0.0) == float(np.abs(found.scales - 1).max())
