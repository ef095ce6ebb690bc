from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.kernels import bounds as bounds_module
from recsys_spark.kernels import scoring
from recsys_spark.kernels.bounds import bounds_in_order, bounds_of_any_order, search_order, vector_norms
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.topk import TopK, merge_top_k
from tests.kernels.cases import nothing, random_rows

Floats = NDArray[np.float32]


def _skewed(seed: int, n_queries: int, n_items: int, dims: int) -> tuple[Floats, Floats]:
    """Items of very different lengths, some of them twice, so that scores tie."""
    random = np.random.default_rng(seed)
    items = random.standard_normal((n_items, dims)) * random.pareto(1.5, (n_items, 1))
    items[random.integers(0, n_items, n_items // 4)] = items[random.integers(0, n_items, n_items // 4)]
    return random.standard_normal((n_queries, dims)).astype(np.float32), items.astype(np.float32)


def _in_order(
    queries: Floats, items: Floats, excluded: IndexLists, k: int, n_apart: int, cuts: tuple[int, ...] = ()
) -> TopK:
    """The same lists from items in `search_order`, cut into shards, of which later ones only add what is better."""
    order = search_order(vector_norms(items, n_apart))
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=np.int32)
    lists = [np.sort(places[some]) for some in np.split(excluded.indices, excluded.indptr[1:-1])]
    masked = IndexLists(excluded.indptr, np.concatenate([np.zeros(0, np.int32), *lists]))
    best = None
    for start, stop in zip((0, *cuts), (*cuts, len(items)), strict=True):
        part, floors = items[order[start:stop]], None if best is None else best.scores[:, -1].copy()
        bounds = bounds_in_order(part, n_apart)
        found = score_top_k(queries, part, masked, k, start, order[start:stop], bounds, floors)
        best = found if best is None else merge_top_k(best, found, k, largest=True)
    assert best is not None
    return best


def _assert_same(best: TopK, expected: TopK) -> None:
    assert best.indices.tolist() == expected.indices.tolist()
    assert best.scores.tobytes() == expected.scores.tobytes()


@given(st.data())
@settings(max_examples=100)
def test_order_shards_and_ends_change_no_list(data: st.DataObject) -> None:
    n_queries, n_items, dims = (data.draw(st.integers(1, most)) for most in (20, 500, 5))
    n_apart, k = data.draw(st.integers(0, dims - 1)), data.draw(st.integers(1, 40))
    queries, items = _skewed(data.draw(st.integers(0, 999)), n_queries, n_items, dims)
    if data.draw(st.booleans()):
        queries, items = np.rint(queries), np.rint(items)
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, max(n_items - 1, 1)), max_size=3)))) if n_items > 1 else ()
    excluded = random_rows(data.draw(st.integers(0, 99)), n_queries, n_items, 0.2, "ones")
    tiles = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 100))
    expected = score_top_k(queries, items, excluded, k)
    with (
        mock.patch.multiple(scoring, TILE_QUERIES=tiles[0], TILE_ITEMS=tiles[1]),
        mock.patch.object(bounds_module, "SAMPLED_ROWS", data.draw(st.integers(1, 100))),
    ):
        _assert_same(_in_order(queries, items, excluded, k, n_apart, cuts), expected)


@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("cuts", [(), (1500,), (1, 2000, 7000)])
@pytest.mark.parametrize("n_apart", [0, 2])
@pytest.mark.parametrize("are_integers", [True, False])
def test_equals_a_search_of_all_over_several_tiles(
    k: int, cuts: tuple[int, ...], n_apart: int, are_integers: bool
) -> None:
    queries, items = _skewed(k, 700, 9000, 8)
    if are_integers:  # floods of ties
        queries, items = np.rint(queries), np.rint(items)
    excluded = random_rows(2, 700, 9000, 0.02, "ones")
    _assert_same(_in_order(queries, items, excluded, k, n_apart, cuts), score_top_k(queries, items, excluded, k))


def test_a_constant_and_a_column_only_some_pick_do_not_loosen_the_bounds() -> None:
    """As in `scoring_vectors`: 1 beside an offset of the user, popularity beside 1 for users without an embedding."""
    queries, items = _skewed(4, 600, 20_000, 10)
    items[:, -2], items[:, -1] = 1, np.random.default_rng(1).random(20_000)
    queries[:, -2], queries[:, -1] = 100, 0
    queries[5], queries[5, -1] = 0, 1
    expected = score_top_k(queries, items, nothing(600), 10)
    _assert_same(_in_order(queries, items, nothing(600), 10, 2), expected)
    assert _share_searched(queries, items, 0) == 1.0
    assert _share_searched(queries[:5], items, 2) < 0.3


def _share_searched(queries: Floats, items: Floats, n_apart: int) -> float:
    """Share of the items' rows that are multiplied with the queries."""
    order = search_order(vector_norms(items, n_apart))
    part, seen = items[order], 0
    bounds = bounds_in_order(part, n_apart)
    for stop in range(1024, len(items) + 1024, 1024):
        # What lies beyond the end of the search may be anything that can be multiplied.
        changed = part.copy()
        changed[stop:] = 1e9
        seen = min(stop, len(items))
        found = score_top_k(queries, changed, nothing(len(queries)), 10, 0, order, bounds)
        if (found.scores < 1e9).all():
            break
    return seen / len(items)


def test_long_vectors_come_first_after_a_sample_of_all() -> None:
    norms = np.random.default_rng(0).permutation(5000).astype(np.float64)
    order = search_order(norms)
    assert sorted(order.tolist()) == list(range(5000))
    sample, rest = norms[order[:1024]], norms[order[1024:]]
    assert (np.diff(rest) < 0).all()
    assert np.abs(np.quantile(sample, [0.1, 0.5, 0.9]) - [500, 2500, 4500]).max() < 20
    assert search_order(np.array([1.0, 3.0, 1.0, 2.0])).tolist() == [1, 3, 0, 2]


def test_bounds_hold_from_their_row_on() -> None:
    items = np.random.default_rng(0).standard_normal((3000, 6)).astype(np.float32)
    bounds = bounds_in_order(items, 2)
    for tile, start in enumerate((0, 1024, 2048)):
        ahead = items[start:]
        assert bounds.norms[tile] == pytest.approx(np.linalg.norm(ahead[:, :4].astype(np.float64), axis=1).max())
        assert bounds.lowest[tile].tolist() == ahead[:, 4:].min(axis=0).tolist()
        assert bounds.highest[tile].tolist() == ahead[:, 4:].max(axis=0).tolist()
    assert bounds.widths.tolist() == np.abs(items).max(axis=0).tolist()
    assert bounds_of_any_order(items).norms.tolist() == [np.inf]
    assert len(bounds_in_order(items[:0], 2).norms) == 1
