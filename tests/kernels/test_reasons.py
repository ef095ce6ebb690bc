"""Terms of scores: they are the largest ones, and all of them add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.kernels import reasons
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.item_models import score_by_items
from recsys_spark.kernels.neighbor_scoring import score_from_neighbors, sum_votes
from recsys_spark.kernels.reasons import Terms, largest_products, largest_weights
from recsys_spark.kernels.vote_reasons import largest_votes
from tests.kernels.cases import dense_of, lists_of, nothing, random_rows

N_ROWS, N_ITEMS, N_LISTED = 9, 11, 8


def require_terms(
    found: Terms, all_terms: NDArray[np.float64], has: NDArray[np.bool_], listed: NDArray[np.int64]
) -> None:
    """All terms, (rows, columns, items), those of a row being where it has a column; sorted here one list at a time."""
    for row, items in enumerate(listed):
        for place, item in enumerate(items):
            own = np.flatnonzero(has[row]) if item >= 0 else np.zeros(0, int)
            terms = all_terms[row, own, item]
            assert found.sums[row, place] == pytest.approx(terms.sum(), abs=1e-5)
            best = -np.sort(-terms[terms > 1e-6])[: found.values.shape[2]]
            named = found.columns[row, place] >= 0
            np.testing.assert_allclose(found.values[row, place][named][: len(best)], best, atol=1e-5)
            np.testing.assert_allclose(
                found.values[row, place][named], all_terms[row, found.columns[row, place][named], item], atol=1e-5
            )
            assert len(best) <= named.sum() == len(set(found.columns[row, place][named]))
            assert (found.values[row, place][~named] == 0).all()


def drawn_lists(seed: int, n_rows: int = N_ROWS) -> NDArray[np.int64]:
    """Different items, and a padded end of some lists."""
    random = np.random.default_rng(seed)
    listed = np.array([random.permutation(N_ITEMS)[:N_LISTED] for _ in range(n_rows)], np.int64)
    return np.where(np.arange(N_LISTED) < random.integers(0, N_LISTED + 1, (n_rows, 1)), listed, -1)


def pattern_of(rows: CsrRows) -> NDArray[np.bool_]:
    has = np.zeros((rows.n_rows, rows.n_columns), bool)
    has[np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr)), rows.indices] = True
    return has


@given(seed=st.integers(0, 99), most=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_products(seed: int, most: int) -> None:
    random, rows = np.random.default_rng(seed), random_rows(seed, N_ROWS, N_ITEMS, 0.5, "signed")
    lefts, rights = (random.standard_normal((N_ITEMS, 5)).astype(np.float32) for _ in range(2))
    scales, listed = random.random((N_ROWS, 5)).astype(np.float32), drawn_lists(seed)
    found = largest_products(rows, scales, lefts, rights, listed, most)
    terms = np.einsum("rj,jd,rd,id->rji", dense_of(rows), lefts.astype(float), scales, rights)
    require_terms(found, terms, pattern_of(rows), listed)
    lengths = np.diff(rows.indptr)
    np.testing.assert_array_equal(found.counts, np.where(listed >= 0, lengths[:, None], 0))
    alone = largest_products(rows.slice_rows(4, 5), scales[4:5], lefts, rights, listed[4:5], most)
    for whole, part in zip(found, alone, strict=True):
        np.testing.assert_array_equal(part, whole[4:5], err_msg="a row's bits depend on the row alone")


def test_rows_and_lists_longer_than_a_chunk() -> None:
    """More entries and items than the kernel takes at once, which no other test has."""
    random = np.random.default_rng(0)
    n = reasons.CHUNK_ENTRIES + 40
    rows = random_rows(0, 2, n, 0.99, "signed")
    lefts, rights = (random.standard_normal((m, 3)).astype(np.float32) for m in (n, reasons.CHUNK_ITEMS + 9))
    listed = np.stack([random.permutation(len(rights)) for _ in range(2)])
    scales, weights = np.ones((2, 3), np.float32), (lefts @ rights.T).astype(np.float32)
    terms = np.einsum("rj,ji->rji", dense_of(rows), weights.astype(float))
    for found in (
        largest_products(rows, scales, lefts, rights, listed, 3, considered=n),
        largest_weights(rows, weights, listed, 3),
    ):
        ordered = np.take_along_axis(terms, listed[:, None, :], axis=2)
        np.testing.assert_allclose(found.sums, ordered.sum(axis=1), atol=1e-3)
        np.testing.assert_allclose(found.values, np.moveaxis(-np.sort(-ordered, axis=1)[:, :3], 1, 2), atol=1e-4)


@given(seed=st.integers(0, 99), considered=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_of_long_rows_those_are_looked_at_that_add_most_to_the_list(seed: int, considered: int) -> None:
    random, rows = np.random.default_rng(seed), random_rows(seed, N_ROWS, N_ITEMS, 0.7, "signed")
    vectors, listed = random.standard_normal((N_ITEMS, 5)).astype(np.float32), drawn_lists(seed)
    scales = np.ones((N_ROWS, 5), np.float32)
    found = largest_products(rows, scales, vectors, vectors, listed, 2, considered)
    terms = dense_of(rows)[:, :, None] * (vectors.astype(float) @ vectors.T)
    for row in range(N_ROWS):
        own, items = rows.indices[rows.indptr[row] : rows.indptr[row + 1]], listed[row][listed[row] >= 0]
        shares = terms[row][np.ix_(own, items)].sum(axis=1)
        looked_at = own[np.lexsort((own, -shares.round(4)))[:considered]]
        best = np.maximum(-np.sort(-terms[row][np.ix_(looked_at, items)], axis=0)[:2].T, 0)
        best = np.pad(best, ((0, 0), (0, 2 - best.shape[1])))
        if len(np.unique(shares.round(4))) == len(shares) or considered >= len(own):
            np.testing.assert_allclose(found.values[row, : len(items)], best, atol=1e-4)
        np.testing.assert_allclose(found.sums[row, : len(items)], terms[row][:, items].sum(axis=0), atol=1e-4)


@given(seed=st.integers(0, 99), most=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_weights(seed: int, most: int) -> None:
    random, rows = np.random.default_rng(seed), random_rows(seed, N_ROWS, N_ITEMS, 0.5, "half stars")
    weights, listed = random.standard_normal((N_ITEMS, N_ITEMS)).astype(np.float32), drawn_lists(seed)
    found = largest_weights(rows, weights, listed, most)
    require_terms(found, dense_of(rows)[:, :, None] * weights.astype(float), pattern_of(rows), listed)
    scores = np.take_along_axis(score_by_items(rows, weights), np.maximum(listed, 0), axis=1)
    np.testing.assert_allclose(found.sums, np.where(listed >= 0, scores, 0), atol=1e-4)


@given(seed=st.integers(0, 99), most=st.integers(1, 4), shrinkage=st.sampled_from([None, 0.0, 2.5]))
@settings(max_examples=60, deadline=None)
def test_votes(seed: int, most: int, shrinkage: float | None) -> None:
    random, rows = np.random.default_rng(seed), random_rows(seed, 12, N_ITEMS, 0.4, "half stars")
    voters = [random.permutation(12)[: random.integers(0, 7)].tolist() for _ in range(N_ROWS)]
    neighbors, listed = lists_of(voters), drawn_lists(seed)
    similarities = random.random(neighbors.indices.size).astype(np.float32)
    found = largest_votes(rows, neighbors, similarities, listed, most, shrinkage)
    weights, has = np.zeros((N_ROWS, 12)), pattern_of(rows)
    weights[np.repeat(np.arange(N_ROWS), np.diff(neighbors.indptr)), neighbors.indices] = similarities
    is_voter = weights > 0
    divisors = 1.0 if shrinkage is None else np.maximum(weights @ has + shrinkage, 1e-30)[:, None, :]
    terms = weights[:, :, None] * dense_of(rows) / divisors
    require_terms(found, terms, is_voter, listed)
    counts = np.take_along_axis((is_voter.astype(int) @ has), np.maximum(listed, 0), axis=1)
    np.testing.assert_array_equal(found.counts, np.where(listed >= 0, counts, 0))


@pytest.mark.parametrize("shrinkage", [None, 1.0])
def test_votes_add_up_to_the_scores_of_the_lists(shrinkage: float | None) -> None:
    rows, random = random_rows(2, 12, N_ITEMS, 0.4, "half stars"), np.random.default_rng(2)
    neighbors = IndexLists(np.arange(0, 12 * 5, 5).astype(np.int64)[: N_ROWS + 1], random.integers(0, 12, 5 * N_ROWS))
    similarities = random.random(5 * N_ROWS).astype(np.float32)
    mode = "sum" if shrinkage is None else "mean"
    best = score_from_neighbors(rows, neighbors, similarities, nothing(N_ROWS), 6, mode, shrinkage or 0.0)
    found = largest_votes(rows, neighbors, similarities, best.indices, 2, shrinkage)
    np.testing.assert_allclose(found.sums, np.where(best.indices >= 0, best.scores, 0), rtol=1e-6)
    if shrinkage is None:
        everything = np.tile(np.arange(N_ITEMS), (N_ROWS, 1))
        sums = largest_votes(rows, neighbors, similarities, everything, 1).sums
        np.testing.assert_allclose(sums, sum_votes(rows, neighbors, similarities), rtol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    rows, vectors = random_rows(3, 4, 7, 0.6, "ones"), np.ones((7, 2), np.float32)
    listed, scales = np.zeros((4, 2), np.int64), np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="4 rows but lists of shape \\(3, 2\\)"):
        largest_products(rows, scales, vectors, vectors, listed[:3], 1)
    with pytest.raises(ValueError, match="lists have item 7, but there are 7"):
        largest_weights(rows, np.ones((7, 7), np.float32), listed + 7, 1)
    with pytest.raises(ValueError, match="rows have a column 6, but there are 3"):
        largest_products(rows, scales, vectors[:3], vectors, listed, 1)
    with pytest.raises(ValueError, match="do not match"):
        largest_products(rows, scales[:, :1], vectors, vectors, listed, 1)
    with pytest.raises(ValueError, match="2 neighbors but similarities \\(1,\\)"):
        largest_votes(rows, lists_of([[0], [1], [], []]), np.ones(1, np.float32), listed, 1)
