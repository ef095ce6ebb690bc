import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from recsys_spark.kernels import scoring
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.leaders import guessed_rank
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.topk import TopK, merge_top_k
from tests.kernels.cases import added_in_lanes, best_of, lists_of, nothing, random_rows

FEW_VALUES = st.sampled_from([np.float32(value) for value in (-2, -0.3, -0.0, 0, 0.1, 1, 1e-30, 3e15)])


def _defined_scores(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    excluded: IndexLists,
    additions: NDArray[np.float32] | float = 0.0,
) -> NDArray[np.float32]:
    """All scores as defined, rounded; -inf where excluded."""
    terms = queries.astype(np.float64)[:, None, :] * items.astype(np.float64)[None, :, :]
    scores = (added_in_lanes(terms) + np.float64(additions)).astype(np.float32)
    for query in range(len(queries)):
        scores[query, excluded.indices[excluded.indptr[query] : excluded.indptr[query + 1]]] = -np.inf
    return scores


def _assert_brute_force(
    best: TopK,
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    excluded: IndexLists,
    k: int,
    additions: NDArray[np.float32] | float = 0.0,
) -> None:
    indices, scores = best_of(_defined_scores(queries, items, excluded, additions), k)
    assert best.indices.tolist() == indices.tolist()
    assert best.scores.tolist() == scores.tolist()  # to the last bit
    assert (best.indices.dtype, best.scores.dtype) == (np.int64, np.float32)


def _bits(best: TopK) -> tuple[list[list[int]], bytes]:
    return best.indices.tolist(), best.scores.tobytes()


def _random_vectors(seed: int, n_queries: int, n_items: int, dims: int) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(n, dims)).astype(np.float32) for n in (n_queries, n_items))


@given(st.data())
@settings(max_examples=200)
def test_equals_the_sorted_scores_with_ties_by_the_smaller_item(data: st.DataObject) -> None:
    n_queries, n_items = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 400))
    dims, k = data.draw(st.integers(1, 3)), data.draw(st.one_of(st.integers(1, 9), st.integers(1, 410)))
    queries = data.draw(arrays(np.float32, (n_queries, dims), elements=FEW_VALUES))
    items = data.draw(arrays(np.float32, (n_items, dims), elements=FEW_VALUES))
    density = data.draw(st.sampled_from([0.0, 0.3, 0.95, 1.0]))
    excluded = random_rows(data.draw(st.integers(0, 99)), n_queries, max(n_items, 1), density, "ones")
    if n_items == 0:
        excluded = nothing(n_queries)
    tile_queries, tile_items = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 300))
    with mock.patch.multiple(scoring, TILE_QUERIES=tile_queries, TILE_ITEMS=tile_items):
        best = score_top_k(queries, items, excluded, k)
        additions = data.draw(arrays(np.float32, (n_queries, n_items), elements=FEW_VALUES))
        with_more = score_top_k(queries, items, excluded, k, additions=additions)
    _assert_brute_force(best, queries, items, excluded, k)
    _assert_brute_force(with_more, queries, items, excluded, k, additions)


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("are_integers", [True, False])
def test_equals_the_sorted_scores_over_several_tiles(k: int, are_integers: bool) -> None:
    queries, items = _random_vectors(1, 300, 5000, 6)
    if are_integers:  # floods of ties
        queries, items = np.rint(queries), np.rint(items)
    excluded = random_rows(2, 300, 5000, 0.05, "ones")
    _assert_brute_force(score_top_k(queries, items, excluded, k), queries, items, excluded, k)
    additions = np.rint(2 * np.random.default_rng(3).normal(size=(300, 5000))).astype(np.float32)
    _assert_brute_force(
        score_top_k(queries, items, excluded, k, additions=additions), queries, items, excluded, k, additions
    )
    only = score_top_k(np.zeros((300, 1), np.float32), items[:, :1], excluded, k, additions=additions)
    _assert_brute_force(only, np.zeros((300, 1), np.float32), items[:, :1], excluded, k, additions)


@pytest.mark.parametrize("first_are_best", [True, False])
@pytest.mark.parametrize("rank", [1, 5, 32])
def test_a_guess_that_fails_is_made_good(rank: int, first_are_best: bool) -> None:
    """Whether limits guessed from the first tile are too high for all queries, for some, or too low."""
    queries, items = _random_vectors(7, 600, 4000, 5)
    queries = np.abs(queries)
    if first_are_best:
        items = items[np.argsort(-items.sum(axis=1))].copy()
    with mock.patch.object(scoring, "guessed_rank", lambda *_: rank):
        best = score_top_k(queries, items, nothing(600), 40)
    _assert_brute_force(best, queries, items, nothing(600), 40)


def test_few_guesses_fail_and_most_of_the_first_scores_are_passed_over() -> None:
    """Of 300 items in 10,000 about 31 are among the first 1,024; of ten, one; then 0.1, and of one item, hardly any."""
    assert [guessed_rank(k, 1024, 10_000) for k in (10, 100, 300)] == [6, 22, 0]
    assert [guessed_rank(k, 1024, 100_000) for k in (1, 10, 100)] == [2, 3, 6]
    assert guessed_rank(10, 63, 63) == 0
    queries, items = _random_vectors(9, 2000, 10_000, 16)
    with mock.patch.object(scoring, "_lead", side_effect=scoring._lead) as lead:
        score_top_k(queries, items, nothing(2000), 10)
    searched = sum(len(call.args[1].slacks) for call in lead.call_args_list)
    assert 2000 <= searched < 2020


@pytest.mark.parametrize("dims", [2, 64, 130])
def test_near_duplicates_are_told_apart_below_the_error_of_matrix_products(dims: int) -> None:
    queries, items = _random_vectors(dims, 6, 1, dims)
    items = np.repeat(items, 3000, axis=0)
    steps = np.random.default_rng(dims).integers(-2, 3, items.shape).astype(np.int32)
    items = (items.view(np.int32) + steps).view(np.float32)  # off by up to two units in the last place
    best = score_top_k(queries, items, nothing(6), 20)
    _assert_brute_force(best, queries, items, nothing(6), 20)


def test_all_items_at_one_score_come_in_their_order() -> None:
    best = score_top_k(np.ones((2, 1), np.float32), np.ones((3000, 1), np.float32), lists_of([[], [0, 2]]), 700)
    assert best.indices[0].tolist() == list(range(700))
    assert best.indices[1].tolist() == [1, *range(3, 702)]


@pytest.mark.parametrize("ascending", [True, False])
def test_scores_that_only_rise_or_fall(ascending: bool) -> None:
    items = np.arange(3000, dtype=np.float32)[:: 1 if ascending else -1].reshape(-1, 1).copy()
    best = score_top_k(np.ones((1, 1), np.float32), items, nothing(1), 100)
    order = np.arange(2999, 2899, -1) if ascending else np.arange(100)
    assert best.indices[0].tolist() == order.tolist()


@pytest.mark.parametrize("dims", [1, 2, 16, 64, 130])
def test_random_vectors_give_the_defined_scores(dims: int) -> None:
    queries, items = _random_vectors(dims, 10, 4500, dims)
    best = score_top_k(queries, items, nothing(10), 50)
    _assert_brute_force(best, queries, items, nothing(10), 50)


@pytest.mark.parametrize("dims", [1, 3, 64, 257])
def test_bits_do_not_depend_on_the_block_or_the_shard(dims: int) -> None:
    queries, items = _random_vectors(dims, 300, 4200, dims)
    excluded = random_rows(dims, 300, 4200, 0.02, "ones")
    whole = score_top_k(queries, items, excluded, 20)
    for start, stop in ((0, 1), (17, 18), (250, 300), (3, 259)):
        lists = excluded.slice_rows(start, stop)
        block = score_top_k(queries[start:stop], items, lists, 20)
        assert _bits(block) == _bits(TopK(whole.indices[start:stop], whole.scores[start:stop]))
    merged = None
    for start, stop in ((0, 1), (1, 333), (333, 2400), (2400, 4200)):
        part = score_top_k(queries, items[start:stop], excluded, 20, first_place=start)
        merged = part if merged is None else merge_top_k(part, merged, 20, largest=True)
    assert merged is not None
    assert _bits(merged) == _bits(whole)


def test_excluded_items_outside_the_shard_are_passed_over() -> None:
    items = np.array([[3.0], [2.0], [1.0]], np.float32)
    excluded = lists_of([[0, 9, 10, 13, 99], [11], [10, 10, 11, 12]])
    best = score_top_k(np.ones((3, 1), np.float32), items, excluded, 2, first_place=10)
    assert best.indices.tolist() == [[11, 12], [10, 12], [-1, -1]]
    assert best.scores.tolist() == [[2, 1], [3, 1], [-np.inf, -np.inf]]


def test_zero_of_either_sign_is_one_score() -> None:
    items = np.array([[-0.0], [0.0], [-0.0]], np.float32)
    assert score_top_k(np.ones((1, 1), np.float32), items, nothing(1), 3).indices.tolist() == [[0, 1, 2]]


def test_tiny_and_large_values_keep_their_order() -> None:
    items = np.array([[1e-40], [2e-40], [-1e30], [1e30]], np.float32)
    best = score_top_k(np.array([[1.0], [-1e8]], np.float32), items, nothing(2), 4)
    assert best.indices.tolist() == [[3, 1, 0, 2], [2, 0, 1, 3]]


def test_items_may_be_mapped_and_nothing_is_changed(tmp_path: Path) -> None:
    queries, items = _random_vectors(5, 10, 2500, 8)
    np.save(tmp_path / "items.npy", items)
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    excluded = random_rows(5, 10, 2500, 0.1, "ones")
    before = queries.copy(), excluded.indices.copy()
    best = score_top_k(queries, mapped, excluded, 10)
    assert _bits(best) == _bits(score_top_k(queries, items, excluded, 10))
    assert np.array_equal(before[0], queries)
    assert np.array_equal(before[1], excluded.indices)


GOOD = np.ones((2, 3), np.float32)


def _with(value: float, row: int) -> NDArray[np.float32]:
    vectors = GOOD.copy()
    vectors[row, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("queries", "items", "excluded", "k", "message"),
    [
        (GOOD, GOOD, nothing(2), 0, "k must be at least 1, got 0"),
        (GOOD, GOOD[:, :2], nothing(2), 1, "queries have 3 dimensions, items 2"),
        (GOOD, GOOD, nothing(1), 1, "2 queries but 1 lists of excluded items"),
        (GOOD.astype(np.float64), GOOD, nothing(2), 1, "query_vectors must be float32"),
        (GOOD, GOOD[0], nothing(2), 1, r"item_vectors must be float32 \(rows, d\), got float32 \(3,\)"),
        (GOOD, GOOD, lists_of([[0], [1, 0]]), 1, "the excluded items of query row 1 are not ascending"),
        (_with(np.nan, 1), GOOD, nothing(2), 1, "the vector of query row 1 is not finite"),
        (_with(-np.inf, 0), GOOD, nothing(2), 1, "the vector of query row 0 is not finite"),
        (GOOD, _with(np.nan, 1), nothing(2), 1, "the vector of item 6 is not finite"),
        (
            _with(-1e30, 0),
            _with(1e10, 1),
            nothing(2),
            1,
            r"scores of query row 0 could reach 1e\+40 and overflow float32",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(
    queries: NDArray[np.float32], items: NDArray[np.float32], excluded: IndexLists, k: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score_top_k(queries, items, excluded, k, first_place=5)


LIBRARIES = """
import threadpoolctl
from recsys_spark.kernels import scoring
before = [library["filepath"] for library in threadpoolctl.threadpool_info()]
import numpy as np
from recsys_spark.kernels.csr import IndexLists
none = IndexLists(np.zeros(9, np.int64), np.zeros(0, np.int32))
scoring.score_top_k(np.ones((8, 4), np.float32), np.ones((99, 4), np.float32), none, 5)
print(before == [library["filepath"] for library in threadpoolctl.threadpool_info()])
"""


def test_scoring_loads_no_library_whose_threads_nobody_has_limited() -> None:
    """The plan limits the threads of the libraries that are loaded when a task begins."""
    done = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
