from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from recsys_spark.kernels import distances, postings, shortlists
from recsys_spark.kernels.csr import CsrRows, Weighting, weigh_rows
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.topk import TopK, merge_top_k
from tests.kernels.cases import (
    NOT_STORED,
    VALUE_POOLS,
    brute_force_nearest,
    dense_of,
    random_rows,
    rows_of,
    sparse_rows,
)

SCAN, VISIT = 0.0, 2.0  # values of scan_share that force one of the two ways through a tile without a head
NO_HEAD = 2.0


def _assert_brute_force(
    found: TopK, queries: CsrRows, ids: np.ndarray, candidates: CsrRows, first: int, k: int
) -> None:
    indices, distances = brute_force_nearest(queries, ids, candidates, first, k)
    assert found.indices.tolist() == indices
    assert found.scores.tolist() == distances  # to the last bit
    assert (found.indices.dtype, found.scores.dtype) == (np.int64, np.float64)


@given(sparse_rows(), st.data())
@settings(max_examples=400)
def test_equals_brute_force_on_any_rows(rows: CsrRows, data: st.DataObject) -> None:
    first = data.draw(st.integers(-3, 3))
    start = data.draw(st.integers(0, rows.n_rows))
    queries = rows.slice_rows(start, data.draw(st.integers(start, rows.n_rows)))
    ids = np.arange(start, start + queries.n_rows, dtype=np.int32) + np.int32(first)
    k = data.draw(st.integers(1, rows.n_rows + 2))
    tile_rows, scan_share = data.draw(st.integers(1, 30)), data.draw(st.sampled_from([SCAN, 0.5, VISIT]))
    spare_slots, pass_bytes = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 200, 1 << 20]))
    head_share = data.draw(st.sampled_from([0.0, 0.5, NO_HEAD]))
    with (
        mock.patch.multiple(shortlists, SPARE_SLOTS=spare_slots, PASS_BYTES=pass_bytes),
        mock.patch.object(postings, "HEAD_SHARE", head_share),
    ):
        found = nearest_rows(queries, ids, rows, first, k, tile_rows, scan_share)
    _assert_brute_force(found, queries, ids, rows, first, k)


@given(sparse_rows(), sparse_rows(), st.data())
def test_shards_merge_to_the_same_bits(rows: CsrRows, others: CsrRows, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, rows.n_rows))
    k = data.draw(st.integers(1, rows.n_rows + 1))
    ids = np.arange(rows.n_rows)
    whole = nearest_rows(rows, ids, rows, 0, k)
    left = nearest_rows(rows, ids, rows.slice_rows(0, cut), 0, k)
    right = nearest_rows(rows, ids, rows.slice_rows(cut, rows.n_rows), cut, k)
    for merged in (merge_top_k(left, right, k, largest=False), merge_top_k(right, left, k, largest=False)):
        assert merged.indices.tolist() == whole.indices.tolist()
        assert merged.scores.tolist() == whole.scores.tolist()


@pytest.mark.parametrize(("head_share", "scan_share"), [(0.0, SCAN), (NO_HEAD, SCAN), (NO_HEAD, VISIT)])
@pytest.mark.parametrize("weighting", ["none", "l2", "center"])
@pytest.mark.parametrize("values", ["ones", "half stars", "tenths", "signed"])
@pytest.mark.parametrize("density", [0.05, 0.5])
def test_equals_brute_force_when_shortlists_overflow(
    values: str, density: float, weighting: Weighting, head_share: float, scan_share: float
) -> None:
    """Hundreds of candidates, many at equal or nearly equal distances, for a handful of slots."""
    rows = weigh_rows(random_rows(5, 400, 12, density, values), weighting)
    queries, ids = rows.slice_rows(100, 108), np.arange(100, 108)
    for k, tile_rows in ((3, 4096), (3, 50), (40, 130)):
        with mock.patch.object(postings, "HEAD_SHARE", head_share):
            found = nearest_rows(queries, ids, rows, 0, k, tile_rows, scan_share)
        _assert_brute_force(found, queries, ids, rows, 0, k)


@pytest.mark.parametrize("values", ["half stars", "tenths", "signed"])
@pytest.mark.parametrize("k", [1, 50, 200])
def test_popular_columns_and_several_tiles(values: str, k: int) -> None:
    """Columns that half of the rows store, columns that one in a hundred stores, and columns in between."""
    random = np.random.default_rng(1)
    matrix = random.choice(np.array(VALUE_POOLS[values], np.float32), (3000, 130))
    matrix[random.random(matrix.shape) >= np.repeat([0.01, 0.5, 0.04], [60, 40, 30])] = NOT_STORED
    rows = rows_of(matrix)
    queries, ids = rows.slice_rows(1400, 1412), np.arange(1400, 1412)
    found = nearest_rows(queries, ids, rows, 0, k)
    _assert_brute_force(found, queries, ids, rows, 0, k)
    in_tiles = nearest_rows(queries, ids, rows, 0, k, 1300)
    assert in_tiles.indices.tolist() == found.indices.tolist()
    assert in_tiles.scores.tolist() == found.scores.tolist()


def test_long_and_short_rows_get_tiles_that_fit() -> None:
    long, short = random_rows(1, 100, 2000, 0.3, "ones"), random_rows(1, 100, 2000, 0.001, "ones")
    assert (distances._suitable_tile(long), distances._suitable_tile(short)) == (4096, 16_384)


@pytest.mark.parametrize("scan_share", [SCAN, VISIT])
def test_near_duplicates_are_told_apart_below_the_rounding_error(scan_share: float) -> None:
    """Distances of about 1e-5 between rows of norm 5,000, where |u|^2 + |v|^2 - 2 u.v is off by more."""
    rng = np.random.default_rng(3)
    matrix = np.repeat(rng.normal(scale=1000, size=(1, 30)).astype(np.float32), 500, axis=0)
    for row, steps in enumerate(rng.integers(1, 40, 500)):
        column = rng.integers(30)
        for _ in range(steps):
            matrix[row, column] = np.nextafter(matrix[row, column], np.float32(np.inf))
    rows, ids = rows_of(matrix), np.arange(20)
    found = nearest_rows(rows.slice_rows(0, 20), ids, rows, 0, 5, 100, scan_share)
    _assert_brute_force(found, rows.slice_rows(0, 20), ids, rows, 0, 5)


def test_distances_are_those_of_scipy() -> None:
    rows = random_rows(7, 60, 20, 0.4, "half stars")
    dense = dense_of(rows)
    expected = cdist(dense, dense)
    expected[np.diag_indices(60)] = np.inf
    order = np.lexsort((np.broadcast_to(np.arange(60), expected.shape), expected), axis=-1)[:, :59]
    found = nearest_rows(rows, np.arange(60), rows, 0, 59)
    assert found.indices.tolist() == order.tolist()  # sums of half stars are exact, so ties are too
    np.testing.assert_allclose(found.scores, np.take_along_axis(expected, order, 1), rtol=1e-15)


def test_by_hand() -> None:
    rows = rows_of([[3.0, NOT_STORED], [NOT_STORED, 4.0], [3.0, 1.0], [NOT_STORED, NOT_STORED]])
    found = nearest_rows(rows, np.arange(4), rows, 0, 2)
    assert found.indices.tolist() == [[2, 3], [3, 2], [0, 3], [0, 2]]
    expected = [[1, 3], [4, 18**0.5], [1, 10**0.5], [3, 10**0.5]]
    assert found.scores.tolist() == expected


@pytest.mark.parametrize("scan_share", [SCAN, VISIT])
def test_a_row_is_not_its_own_neighbor_but_its_duplicates_are_at_zero(scan_share: float) -> None:
    rows = rows_of([[0.1, 0.7, 0.3]] * 300)
    found = nearest_rows(rows, np.arange(300), rows, 0, 2, 64, scan_share)
    assert found.indices[0].tolist() == [1, 2]
    assert found.indices[1].tolist() == [0, 2]
    assert (found.indices[2:] == [0, 1]).all()
    assert not found.scores.any()


def test_ids_decide_what_is_oneself() -> None:
    rows = rows_of([[1.0], [1.0], [1.0]])
    assert nearest_rows(rows, np.array([7, 8, 99]), rows, 7, 3).indices.tolist() == [
        [8, 9, -1],
        [7, 9, -1],
        [7, 8, 9],
    ]


def test_distances_that_round_to_one_are_ties() -> None:
    # 1 + 2^-52 and 1 have the same square root in float64.
    rows = rows_of([[1.0, 2.0**-26], [1.0, NOT_STORED]])
    origin = rows_of([[NOT_STORED, NOT_STORED]])
    for scan_share in (SCAN, VISIT):
        found = nearest_rows(origin, np.array([9]), rows, 0, 1, 4096, scan_share)
        assert (found.indices.tolist(), found.scores.tolist()) == ([[0]], [[1.0]])


_ = NOT_STORED
QUERY = rows_of([[1.0, _, _, _, _]])
AT_3 = [1.0, 1.0, 1.0, 1.0, _]  # squared distances to the query
AT_2_AND_A_HALF = [1.0, 1.0, 1.0, 0.5, 0.5]
AT_2 = [1.0, 1.0, 1.0, _, _]
AT_2_WITHOUT_A_COMMON_COLUMN = [_, 1.0, _, _, _]


@pytest.mark.parametrize("scan_share", [SCAN, VISIT])
@pytest.mark.parametrize(
    "matrix",
    [
        [AT_2_WITHOUT_A_COMMON_COLUMN] + [AT_2] * 300,
        [AT_3] * 200 + [AT_2_WITHOUT_A_COMMON_COLUMN] + [AT_2] + [AT_2_AND_A_HALF] * 200,
    ],
)
def test_a_tie_that_comes_late_still_goes_to_the_smaller_id(matrix: list[list[float]], scan_share: float) -> None:
    """Rows without a common column come after those with one, when floods have set the limit already."""
    rows = rows_of(matrix)
    found = nearest_rows(QUERY, np.array([-1]), rows, 0, 1, 4096, scan_share)
    assert found.indices.tolist() == [[matrix.index(AT_2_WITHOUT_A_COMMON_COLUMN)]]
    assert found.scores.tolist() == [[2**0.5]]


def test_pairs_of_the_same_make_up_tie_wherever_their_columns_lie() -> None:
    """In unit rows of n ones all that counts is how many columns two rows share, not which."""
    rows = weigh_rows(random_rows(2, 200, 40, 0.2, "ones"), "l2")
    found = nearest_rows(rows, np.arange(200), rows, 0, 199)
    lengths = np.diff(rows.indptr)
    overlaps = (dense_of(rows) > 0).astype(int) @ (dense_of(rows) > 0).astype(int).T
    for query in range(200):
        make_up = list(zip(lengths[found.indices[query]], overlaps[query, found.indices[query]], strict=True))
        distance_of = dict(zip(make_up, found.scores[query], strict=True))
        assert [distance_of[pair] for pair in make_up] == found.scores[query].tolist()


@pytest.mark.parametrize(("n_queries", "n_candidates"), [(0, 0), (0, 3), (3, 0), (1, 1), (1, 2)])
def test_hardly_any_rows(n_queries: int, n_candidates: int) -> None:
    queries, candidates = rows_of(np.ones((n_queries, 2))), rows_of(np.ones((n_candidates, 2)))
    found = nearest_rows(queries, np.arange(n_queries), candidates, 0, 3)
    _assert_brute_force(found, queries, np.arange(n_queries), candidates, 0, 3)
    assert found.indices.shape == (n_queries, 3)


def test_candidates_may_be_mapped_and_are_not_changed(tmp_path: Path) -> None:
    rows = random_rows(4, 90, 10, 0.4, "tenths")
    arrays = {}
    for name in ("indptr", "indices", "values"):
        np.save(tmp_path / f"{name}.npy", getattr(rows, name))
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    mapped = CsrRows(**arrays, n_columns=10)
    found = nearest_rows(rows, np.arange(90), mapped, 0, 5)
    _assert_brute_force(found, rows, np.arange(90), rows, 0, 5)


ONE = rows_of([[1.0, 2.0]])
UNSORTED = CsrRows(np.array([0, 2]), np.array([1, 0], np.int32), np.ones(2, np.float32), 2)
INFINITE = CsrRows(np.array([0, 1]), np.array([0], np.int32), np.array([np.inf], np.float32), 2)


@pytest.mark.parametrize(
    ("queries", "ids", "candidates", "k", "tile_rows", "message"),
    [
        (ONE, [0], ONE, 0, 64, "k must be at least 1, got 0"),
        (ONE, [0, 1], ONE, 1, 64, r"query_ids must be \(1,\), got \(2,\)"),
        (ONE, [0], rows_of([[1.0]]), 1, 64, "queries have 2 columns, candidates 1"),
        (ONE, [0], ONE, 1, 0, "tile_rows must be 1 to 65536, got 0"),
        (ONE, [0], ONE, 1, 65537, "tile_rows must be 1 to 65536, got 65537"),
        (UNSORTED, [0], ONE, 1, 64, "query row 0 has columns that are not ascending within 0 to 2"),
        (ONE, [0], UNSORTED, 1, 64, "candidate row 0 has columns that are not ascending within 0 to 2"),
        (ONE, [0], INFINITE, 1, 64, "candidate row 0 has a value that is not finite"),
        (INFINITE, [0], ONE, 1, 64, "query row 0 has a value that is not finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    queries: CsrRows, ids: list[int], candidates: CsrRows, k: int, tile_rows: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_rows(queries, np.array(ids), candidates, 0, k, tile_rows)


def test_the_largest_tile_is_searched_to_its_last_row() -> None:
    rows = rows_of(np.arange(1 << 16, dtype=np.float32).reshape(-1, 1))
    ids = np.array([-1])
    found = nearest_rows(rows.slice_rows(65535, 65536), ids, rows, 0, 2, 1 << 16)
    assert (found.indices.tolist(), found.scores.tolist()) == ([[65535, 65534]], [[0.0, 1.0]])
