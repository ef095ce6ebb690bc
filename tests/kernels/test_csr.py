from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import (
    CsrRows,
    IndexLists,
    Weighting,
    column_range,
    column_weights,
    csr_from_pairs,
    joined_rows,
    require_valid_columns,
    rows_of_ones,
    transpose_lists,
    weigh_rows,
)
from tests.kernels.cases import NOT_STORED, dense_of, random_rows, rows_of, sparse_rows


def _same(left: CsrRows, right: CsrRows) -> bool:
    return (
        left.n_columns == right.n_columns
        and np.array_equal(left.indptr, right.indptr)
        and np.array_equal(left.indices, right.indices)
        and left.values.tobytes() == right.values.tobytes()
    )


@given(rows=sparse_rows(), seed=st.integers(0, 99))
def test_rows_can_be_taken_in_any_order_and_again(rows: CsrRows, seed: int) -> None:
    chosen = np.random.default_rng(seed).integers(0, rows.n_rows, 5) if rows.n_rows else np.zeros(0, np.int64)
    taken = rows.take_rows(chosen)
    assert taken.n_rows == len(chosen)
    for place, row in enumerate(chosen):
        assert _same(taken.slice_rows(place, place + 1), rows.slice_rows(row, row + 1))


class TestBuilding:
    def test_pairs_are_sorted_and_stored_zeros_stay(self) -> None:
        rows = csr_from_pairs(np.array([2, 0, 2]), np.array([3, 1, 0]), np.array([0.0, 4.0, 5.0]), 4, 5)
        assert rows.indptr.tolist() == [0, 1, 1, 3, 3]
        assert rows.indices.tolist() == [1, 0, 3]
        assert rows.values.tolist() == [4.0, 5.0, 0.0]
        assert (rows.indptr.dtype, rows.indices.dtype, rows.values.dtype) == (np.int64, np.int32, np.float32)
        assert (rows.n_rows, rows.nnz, rows.n_columns) == (4, 3, 5)

    @given(sparse_rows(), st.randoms(use_true_random=False))
    def test_any_order_of_pairs_gives_the_rows_scipy_gives(self, rows: CsrRows, random: object) -> None:
        row_of = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
        order = np.arange(rows.nnz)
        random.shuffle(order)  # type: ignore[attr-defined]
        pairs = row_of[order], rows.indices[order], rows.values[order]
        built = csr_from_pairs(*pairs, rows.n_rows, rows.n_columns)
        expected = sp.csr_array((pairs[2], pairs[:2]), shape=(rows.n_rows, rows.n_columns))
        expected.sort_indices()
        assert _same(built, rows)
        assert np.array_equal(built.indptr, expected.indptr)
        assert np.array_equal(built.indices, expected.indices)

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            (([0, 3], [1, 1], [1, 1]), r"pair \(row 3, column 1\) is outside 3 rows x 2 columns"),
            (([0, -1], [1, 1], [1, 1]), r"pair \(row -1, column 1\) is outside"),
            (([0, 1], [1, 2], [1, 1]), r"pair \(row 1, column 2\) is outside"),
            (([0, 1], [1, -2], [1, 1]), r"pair \(row 1, column -2\) is outside"),
            (([2, 0, 2], [1, 0, 1], [1, 1, 1]), r"pair \(row 2, column 1\) is given more than once"),
            (([0, 1], [0, 1], [1, np.nan]), r"pair \(row 1, column 1\) has a value that is not a finite float32"),
            (([0, 1], [0, 1], [1, 1e39]), r"pair \(row 1, column 1\) has a value that is not a finite float32"),
            (([0, 1], [0, 1], [1]), r"2 rows, 2 columns and 1 values do not match"),
        ],
    )
    def test_bad_pairs_are_named(self, pairs: tuple[list[int], ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            csr_from_pairs(*(np.array(part) for part in pairs), 3, 2)

    @pytest.mark.parametrize(
        ("indptr", "indices", "values"),
        [
            (np.array([0, 1], np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32)),
            (np.array([], np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)),
            (np.array([1, 1]), np.zeros(1, np.int32), np.zeros(1, np.float32)),
            (np.array([0, 2]), np.zeros(1, np.int32), np.zeros(1, np.float32)),
            (np.array([0, 2, 1, 2]), np.zeros(2, np.int32), np.zeros(2, np.float32)),
            (np.array([0, 1]), np.zeros(1, np.int64), np.zeros(1, np.float32)),
            (np.array([0, 1]), np.zeros(1, np.int32), np.zeros(1, np.float64)),
            (np.array([0, 1]), np.zeros(1, np.int32), np.zeros(2, np.float32)),
        ],
    )
    def test_arrays_that_are_no_rows_are_refused(
        self, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray
    ) -> None:
        with pytest.raises(ValueError, match=r"ind|values"):
            CsrRows(indptr, indices, values, 3)

    @pytest.mark.parametrize("columns", [[1, 0], [1, 1], [0, 3], [-1, 0]])
    def test_invalid_columns_are_found(self, columns: list[int]) -> None:
        values = np.ones(3, np.float32)
        rows = CsrRows(np.array([0, 1, 3]), np.array([2, *columns], np.int32), values, 3)
        with pytest.raises(ValueError, match="query row 1 has columns that are not ascending within 0 to 3"):
            require_valid_columns(rows, "query")
        require_valid_columns(CsrRows(rows.indptr, np.array([2, 0, 2], np.int32), values, 3), "query")


class TestRows:
    @given(sparse_rows())
    def test_squared_norms_are_those_of_the_dense_rows(self, rows: CsrRows) -> None:
        expected = np.square(dense_of(rows)).sum(axis=1)
        np.testing.assert_allclose(rows.squared_norms, expected, rtol=1e-14, atol=0)
        assert rows.squared_norms.dtype == np.float64

    @given(sparse_rows(), st.integers(0, 2**32 - 1))
    def test_select_keeps_exactly_the_masked_entries(self, rows: CsrRows, seed: int) -> None:
        mask = np.random.default_rng(seed).random(rows.nnz) < 0.5
        row_of = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
        kept = csr_from_pairs(row_of[mask], rows.indices[mask], rows.values[mask], rows.n_rows, rows.n_columns)
        assert _same(rows.select(mask), kept)

    @given(sparse_rows(), st.data())
    def test_slices_are_views_of_the_rows(self, rows: CsrRows, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, rows.n_rows))
        stop = data.draw(st.integers(start, rows.n_rows))
        part = rows.slice_rows(start, stop)
        assert _same(part, rows_of(_with_holes(rows)[start:stop]))
        assert part.nnz == 0 or np.shares_memory(part.values, rows.values)

    def test_slices_of_mapped_files_stay_mapped(self, tmp_path: Path) -> None:
        rows = random_rows(1, 20, 6, 0.5, "tenths")
        arrays = {}
        for name in ("indptr", "indices", "values"):
            np.save(tmp_path / f"{name}.npy", getattr(rows, name))
            arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        part = CsrRows(**arrays, n_columns=6).slice_rows(3, 9)
        assert isinstance(part.values, np.memmap)
        assert _same(part, rows.slice_rows(3, 9))
        assert _same(weigh_rows(part, "l2"), weigh_rows(rows.slice_rows(3, 9), "l2"))

    @given(sparse_rows(), st.data())
    def test_joined_slices_are_the_rows(self, rows: CsrRows, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.lists(st.integers(0, rows.n_rows), max_size=4)))
        bounds = pairwise([0, *cuts, rows.n_rows])
        assert _same(joined_rows([rows.slice_rows(start, stop) for start, stop in bounds]), rows)

    @given(sparse_rows(), st.data())
    def test_a_range_of_columns(self, rows: CsrRows, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, rows.n_columns))
        stop = data.draw(st.integers(start, rows.n_columns))
        part = column_range(rows, start, stop)
        assert part.n_columns == stop - start
        assert np.array_equal(dense_of(part), dense_of(rows)[:, start:stop])
        assert part.nnz == int(((rows.indices >= start) & (rows.indices < stop)).sum())  # stored zeros too

    def test_columns_outside_the_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="columns 1 to 3 are not within 0 to 2"):
            column_range(rows_of([[1.0, 2.0]]), 1, 3)

    def test_rows_of_other_columns_are_not_joined(self) -> None:
        with pytest.raises(ValueError, match=r"same columns, got \[1, 2\]"):
            joined_rows([rows_of([[1.0]]), rows_of([[1.0, 2.0]])])

    def test_slices_outside_the_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="rows 1 to 4 are not within 0 to 3"):
            rows_of([[1.0]] * 3).slice_rows(1, 4)

    def test_lists_count_their_rows(self) -> None:
        assert IndexLists(np.array([0, 2, 2]), np.array([5, 1])).n_rows == 2


def _with_holes(rows: CsrRows) -> np.ndarray:
    dense = np.full((rows.n_rows, rows.n_columns), NOT_STORED)
    dense[np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr)), rows.indices] = rows.values
    return dense


class TestWeighting:
    ROWS = rows_of([[3.0, NOT_STORED, 4.0], [NOT_STORED, 2.0, 0.0], [NOT_STORED] * 3])
    IDF = np.array([1.0, 2.0, 0.5], np.float32)

    def test_none_changes_nothing(self) -> None:
        assert weigh_rows(self.ROWS, "none") is self.ROWS

    def test_l2_gives_unit_rows(self) -> None:
        assert weigh_rows(self.ROWS, "l2").values.tolist() == pytest.approx([0.6, 0.8, 1.0, 0.0])

    def test_center_subtracts_the_mean_of_the_stored_values(self) -> None:
        assert weigh_rows(self.ROWS, "center").values.tolist() == [-0.5, 0.5, 1.0, -1.0]

    def test_tfidf_weighs_columns_then_gives_unit_rows(self) -> None:
        # row 0: (3 * 1, 4 * 0.5) = (3, 2), norm sqrt(13)
        weighed = weigh_rows(self.ROWS, "tfidf", self.IDF)
        assert weighed.values.tolist() == pytest.approx([3 / 13**0.5, 2 / 13**0.5, 1.0, 0.0])

    def test_bm25_by_hand(self) -> None:
        # Two entries, twice the mean of 1: damping 1.2 * (0.25 + 0.75 * 2) = 2.1; 3 * 2.2 / (3 + 2.1) * 1
        weighed = weigh_rows(self.ROWS, "bm25", self.IDF, mean_row_length=1.0)
        expected = [3 * 2.2 / 5.1, 4 * 2.2 / 6.1 * 0.5, 2 * 2.2 / 4.1 * 2, 0.0]
        assert weighed.values.tolist() == pytest.approx(expected)

    def test_column_weights_by_hand(self) -> None:
        frequency = np.array([0, 1, 4])
        tfidf = [np.log(5 / 1) + 1, np.log(5 / 2) + 1, 1.0]
        bm25 = [np.log(1 + 4.5 / 0.5), np.log(1 + 3.5 / 1.5), np.log(1 + 0.5 / 4.5)]
        assert column_weights(frequency, 4, "tfidf").tolist() == pytest.approx(tfidf)
        assert column_weights(frequency, 4, "bm25").tolist() == pytest.approx(bm25)
        assert column_weights(frequency, 4, "bm25").dtype == np.float32

    @given(sparse_rows(), st.sampled_from(get_args(Weighting)), st.data())
    @settings(max_examples=200)
    def test_a_row_has_the_same_bits_in_every_block(
        self, rows: CsrRows, weighting: Weighting, data: st.DataObject
    ) -> None:
        idf = np.linspace(0.1, 1.3, rows.n_columns, dtype=np.float32)
        start = data.draw(st.integers(0, rows.n_rows))
        stop = data.draw(st.integers(start, rows.n_rows))
        part = rows.slice_rows(start, stop)
        try:
            whole = weigh_rows(rows, weighting, idf, 2.5)
        except ValueError:  # negative values for bm25, or a difference that float32 cannot hold
            assert weighting in ("bm25", "center")
            return
        assert _same(weigh_rows(part, weighting, idf, 2.5), whole.slice_rows(start, stop))
        assert np.array_equal(whole.indices, rows.indices)

    @given(sparse_rows())
    def test_euclidean_order_of_l2_rows_is_cosine_order(self, rows: CsrRows) -> None:
        dense = dense_of(weigh_rows(rows, "l2"))
        lengths = np.linalg.norm(dense, axis=1)
        is_empty = ~dense_of(rows).any(axis=1)
        np.testing.assert_allclose(lengths[~is_empty], 1.0, atol=3e-7)
        assert not lengths[is_empty].any()

    @pytest.mark.parametrize(
        ("weighting", "weights", "length", "message"),
        [
            ("cosine", None, None, "weighting must be one of"),
            ("tfidf", None, None, r"tfidf needs column_weights of shape \(3,\), got None"),
            ("tfidf", np.ones(2, np.float32), None, r"tfidf needs column_weights of shape \(3,\), got \(2,\)"),
            ("bm25", np.ones(3, np.float32), None, "bm25 needs a mean_row_length above 0, got None"),
            ("bm25", np.ones(3, np.float32), 0.0, "bm25 needs a mean_row_length above 0, got 0"),
        ],
    )
    def test_what_a_weighting_needs_is_named(
        self, weighting: Weighting, weights: np.ndarray | None, length: float | None, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            weigh_rows(self.ROWS, weighting, weights, length)

    def test_rows_that_cannot_be_weighed_are_named(self) -> None:
        negative = rows_of([[NOT_STORED, NOT_STORED], [1.0, -1.0]])
        with pytest.raises(ValueError, match="bm25 needs values >= 0, but row 1 has a negative one"):
            weigh_rows(negative, "bm25", np.ones(2, np.float32), 1.0)
        with pytest.raises(ValueError, match="row 1 has a weighted value that is not a finite float32"):
            weigh_rows(rows_of([[1.0] * 3, [3.4e38, -3.4e38, -3.4e38]]), "center")

    def test_column_weights_refuse_what_makes_no_sense(self) -> None:
        with pytest.raises(ValueError, match="column 1 is in 5 rows, not within 0 to 4"):
            column_weights(np.array([0, 5]), 4, "tfidf")
        with pytest.raises(ValueError, match="weighting 'l2' has no column weights"):
            column_weights(np.array([0, 1]), 4, "l2")


@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_transposed_lists_are_those_of_the_columns(seed: int, n_rows: int, n_columns: int, is_given: bool) -> None:
    rows = random_rows(seed, n_rows, n_columns, 0.3, "tenths")
    room = np.empty(rows.nnz, np.int32) if is_given else None
    columns = transpose_lists(rows, n_columns, room)
    expected = sp.csr_array((np.ones(rows.nnz), rows.indices, rows.indptr), shape=(n_rows, n_columns)).tocsc()
    assert columns.indptr.tolist() == expected.indptr.tolist()
    assert columns.indices.tolist() == expected.indices.tolist()
    assert room is None or columns.indices is room


def test_rows_of_ones_take_no_memory_for_them() -> None:
    rows = rows_of_ones(IndexLists(np.array([0, 2, 3]), np.array([0, 4, 1], np.int32)), 5)
    assert rows.values.tolist() == [1, 1, 1]
    assert rows.values.strides == (0,)
    assert rows.n_columns == 5
