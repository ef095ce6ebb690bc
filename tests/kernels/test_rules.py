"""Rules in the kernels: factors of scores, items of no user, and users who get some items only; by brute force."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from recsys_spark.kernels import scoring
from recsys_spark.kernels.boosts import boost, factors_of, without_boost
from recsys_spark.kernels.bounds import bounds_in_order, search_order, vector_norms
from recsys_spark.kernels.csr import IndexLists, column_range
from recsys_spark.kernels.exclusions import Exclusions
from recsys_spark.kernels.neighbor_scoring import score_from_neighbors
from recsys_spark.kernels.ranked import put_first
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.topk import TopK, merge_top_k
from tests.kernels.cases import added_in_lanes, best_of, lists_of, nothing, random_rows

FEW_VALUES = st.sampled_from([np.float32(value) for value in (-2, -0.3, -0.0, 0, 0.1, 1, 1e-30, 3e12)])
FACTORS = st.sampled_from([np.float32(value) for value in (0.001, 0.5, 1, 1.1, 3, 1000)])


@st.composite
def exclusions(draw: st.DrawFn, n_queries: int, n_items: int) -> Exclusions:
    """Lists of some, few, or nearly all items, by which each query gets those, or all others."""
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 0.95]))
    lists = random_rows(draw(st.integers(0, 99)), n_queries, n_items, density, "ones")
    are_allowed = draw(arrays(np.bool_, (n_queries,)))
    return Exclusions(lists.indptr, lists.indices, are_allowed)


def is_hidden(excluded: IndexLists, n_items: int) -> NDArray[np.bool_]:
    """What each query does not get, (queries, items)."""
    hidden = np.zeros((excluded.n_rows, n_items), bool)
    hidden[np.repeat(np.arange(excluded.n_rows), np.diff(excluded.indptr)), excluded.indices] = True
    are_allowed = excluded.are_allowed if isinstance(excluded, Exclusions) else np.zeros(excluded.n_rows, bool)
    return hidden != are_allowed[:, None]


def defined_scores(
    queries: NDArray[np.float32], items: NDArray[np.float32], factors: NDArray[np.float32]
) -> NDArray[np.float32]:
    terms = queries.astype(np.float64)[:, None, :] * items.astype(np.float64)[None, :, :]
    scores, by = added_in_lanes(terms), factors.astype(np.float64)
    return np.array([[s * f if s > 0 else s / f for s, f in zip(row, by, strict=True)] for row in scores]).astype(
        np.float32
    )


def assert_same(best: TopK, scores: NDArray[np.float32], k: int) -> None:
    indices, values = best_of(scores + np.float32(0), k)
    assert best.indices.tolist() == indices.tolist()
    assert best.scores.tolist() == values.tolist()  # to the last bit


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_products_are_boosted_and_hidden_as_by_brute_force(data: st.DataObject) -> None:
    n_queries, n_items = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 300))
    dims, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 310))
    queries = data.draw(arrays(np.float32, (n_queries, dims), elements=FEW_VALUES))
    items = data.draw(arrays(np.float32, (n_items, dims), elements=FEW_VALUES))
    factors = data.draw(arrays(np.float32, (n_items,), elements=FACTORS))
    excluded = data.draw(exclusions(n_queries, n_items))
    tiles = {"TILE_QUERIES": data.draw(st.integers(1, 8)), "TILE_ITEMS": data.draw(st.integers(1, 300))}
    expected = np.where(is_hidden(excluded, n_items), -np.inf, defined_scores(queries, items, factors))
    with mock.patch.multiple(scoring, **tiles):
        assert_same(score_top_k(queries, items, excluded, k, factors=factors), expected.astype(np.float32), k)


@pytest.mark.parametrize("dims", [1, 2, 16, 64])
@pytest.mark.parametrize("spread", [0.01, 3.0])
def test_a_search_that_ends_early_misses_nothing(dims: int, spread: float) -> None:
    """Bounds know nothing of factors: an item of a short vector may stand first by its factor."""
    random = np.random.default_rng(dims)
    items = (random.standard_normal((6000, dims)) * random.lognormal(0, 2, (6000, 1))).astype(np.float32)
    items = items[search_order(vector_norms(items, 0))]
    factors = random.lognormal(0, spread, len(items)).astype(np.float32)
    queries = random.standard_normal((40, dims)).astype(np.float32)
    lists = random_rows(dims, 40, len(items), 0.01, "ones")
    excluded = Exclusions(lists.indptr, lists.indices, np.arange(40) % 3 == 0)
    scores = np.where(is_hidden(excluded, len(items)), -np.inf, defined_scores(queries, items, factors))
    bounds = bounds_in_order(items)
    best = score_top_k(queries, items, excluded, 20, bounds=bounds, factors=factors)
    assert_same(best, scores.astype(np.float32), 20)
    merged = None
    for start, stop in ((0, 1), (1, 2500), (2500, 6000)):
        some = (
            items[start:stop],
            excluded,
            20,
            start,
            np.arange(start, stop, dtype=np.int32),
            bounds_in_order(items[start:stop]),
        )
        floors = None if merged is None else merged.scores[:, -1].copy()
        part = score_top_k(queries, *some, floors, factors=factors[start:stop])
        merged = part if merged is None else merge_top_k(merged, part, 20, largest=True)
    assert merged is not None
    assert (merged.indices.tolist(), merged.scores.tobytes()) == (best.indices.tolist(), best.scores.tobytes())


def test_floods_of_equal_scores_are_told_apart_by_the_item() -> None:
    items, factors = np.ones((5000, 2), np.float32), np.full(5000, 2.0, np.float32)
    factors[[7, 4001]] = 2.5
    best = score_top_k(np.ones((1, 2), np.float32), items, lists_of([[0]]), 5, factors=factors)
    assert best.indices.tolist() == [[7, 4001, 1, 2, 3]]
    assert best.scores.tolist() == [[5, 5, 4, 4, 4]]


def test_who_gets_nothing_is_not_searched_for() -> None:
    queries, items = np.ones((3, 4), np.float32), np.ones((2000, 4), np.float32)
    excluded = Exclusions(np.array([0, 0, 0, 1], np.int64), np.array([1999], np.int32), np.array([True, False, True]))
    with mock.patch.object(scoring, "report_best", side_effect=scoring.report_best) as report:
        best = score_top_k(queries, items, excluded, 2)
    assert best.indices.tolist() == [[-1, -1], [0, 1], [1999, -1]]
    assert report.call_args_list[0].args[0].counts[0] == 0


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_votes_are_boosted_and_hidden_as_by_brute_force(data: st.DataObject) -> None:
    """Votes without rules, of all items, are what the rules are applied to by hand."""
    n_items, k = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 45))
    rows = random_rows(data.draw(st.integers(0, 99)), 12, n_items, 0.3, "signed")
    neighbors = lists_of(
        data.draw(st.lists(st.lists(st.integers(0, 11), max_size=4, unique=True), min_size=1, max_size=4))
    )
    similarities = np.full(neighbors.indices.size, 0.5, np.float32)
    mode = data.draw(st.sampled_from(["sum", "mean"]))
    factors = data.draw(
        arrays(np.float32, (n_items,), elements=st.sampled_from([np.float32(x) for x in (0, 0.5, 1, 4)]))
    )
    excluded = data.draw(exclusions(neighbors.n_rows, n_items))
    plain = score_from_neighbors(rows, neighbors, similarities, nothing(neighbors.n_rows), n_items, mode)
    scores = np.full((neighbors.n_rows, n_items), -np.inf, np.float32)
    for query, (items, values) in enumerate(zip(plain.indices, plain.scores, strict=True)):
        voted = items[items >= 0]
        scores[query, voted] = values[: len(voted)]
    is_gone = is_hidden(excluded, n_items) | (factors == 0) | (scores == -np.inf)
    powers = np.where(scores > 0, factors, 1 / np.where(factors > 0, factors, 1))  # powers of two: exact
    expected = np.where(is_gone, -np.inf, np.where(is_gone, 0, scores) * powers).astype(np.float32)
    best = score_from_neighbors(rows, neighbors, similarities, excluded, k, mode, factors=factors)
    assert_same(best, expected, k)
    cut = data.draw(st.integers(0, n_items))
    parts = [column_range(rows, 0, cut), column_range(rows, cut, n_items)]
    left, right = (
        score_from_neighbors(
            part, neighbors, similarities, excluded, k, mode, 0.0, first, factors[first : first + part.n_columns]
        )
        for part, first in zip(parts, (0, cut), strict=True)
    )
    assert_same(merge_top_k(left, right, k, largest=True), expected, k)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_ranked_lists_hold_only_what_is_allowed(data: st.DataObject) -> None:
    n_queries, n_items, k = data.draw(st.integers(1, 5)), 9, data.draw(st.integers(1, 11))
    excluded = data.draw(exclusions(n_queries, n_items))
    hidden = is_hidden(excluded, n_items)
    ranked = data.draw(st.lists(st.integers(0, n_items - 1), unique=True, max_size=n_items))
    below = np.where(hidden, -np.inf, -np.arange(n_items)[None, :] - 1.0).astype(np.float32)
    full = below.copy()
    for place, item in enumerate(ranked):
        full[~hidden[:, item], item] = len(ranked) - place
    rest = TopK(*best_of(below, k))
    scores = np.arange(len(ranked), 0, -1, dtype=np.float32)
    assert_same(put_first(lists_of([ranked]), scores, np.zeros(n_queries, np.int32), excluded, rest), full, k)


def test_a_factor_moves_scores_of_either_sign_in_its_direction_and_back() -> None:
    scores = np.array([-4.0, -0.0, 3.0, -np.inf], np.float32)
    factors = np.array([2.0, 2.0, 0.5, 4.0], np.float32)
    assert boost(scores, factors).tolist() == [-2.0, 0.0, 1.5, -np.inf]
    assert without_boost(boost(scores, factors), factors).tolist() == scores.tolist()


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_a_factor_that_is_none_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"factor 1 must be above 0 and finite, got"):
        factors_of(np.array([1.0, factor], np.float32), 2)
    with pytest.raises(ValueError, match=r"3 items but factors \(2,\)"):
        factors_of(np.ones(2, np.float32), 3)


def test_flags_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"are_allowed must be bool \(1,\), got bool \(2,\)"):
        Exclusions(np.array([0, 1], np.int64), np.array([3], np.int32), np.zeros(2, bool))


def test_rows_keep_whether_they_are_allowed() -> None:
    lists = Exclusions(np.array([0, 1, 3, 3], np.int64), np.array([5, 1, 2], np.int32), np.array([True, False, True]))
    some = lists.slice_rows(1, 3)
    assert (some.indices.tolist(), some.are_allowed.tolist()) == ([1, 2], [False, True])
    taken = lists.take_rows(np.array([2, 0]))
    assert (taken.indices.tolist(), taken.are_allowed.tolist()) == ([5], [True, True])
