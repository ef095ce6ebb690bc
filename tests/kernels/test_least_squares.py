import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, rows_of_ones
from recsys_spark.kernels.least_squares import CHUNK_ENTRIES, fixed_side, solve_rows
from tests.kernels.cases import dense_of, random_rows, rows_of

Floats = NDArray[np.float32]


def _by_normal_equations(
    rows: CsrRows, vectors: Floats, unobserved_weight: float, penalties: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The minimum from its gradient, in float64, over all columns, and what is left there."""
    weights, wide = dense_of(rows), vectors.astype(np.float64)
    solved = np.zeros((rows.n_rows, wide.shape[1]))
    for row in range(rows.n_rows):
        matrix = wide.T @ (wide * (weights[row] + unobserved_weight)[:, None]) + penalties[row] * np.eye(wide.shape[1])
        solved[row] = np.linalg.solve(matrix, wide.T @ weights[row])
    scores, lengths = solved @ wide.T, (solved**2).sum(axis=1)
    missed, everywhere = (weights * (1.0 - scores) ** 2).sum(axis=1), (scores**2).sum(axis=1)
    return solved, missed + unobserved_weight * everywhere + penalties * lengths


@given(st.data())
@settings(max_examples=60)
def test_equals_the_normal_equations(data: st.DataObject) -> None:
    n_rows, n_columns, dims = (data.draw(st.integers(1, most)) for most in (9, 60, 24))
    seed = data.draw(st.integers(0, 999))
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n_columns, dims)).astype(np.float32)
    rows = random_rows(seed, n_rows, n_columns, data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])), "tenths")
    penalties = random.uniform(0.1, 3.0, n_rows).astype(np.float32)
    unobserved = data.draw(st.sampled_from([0.0, 0.01, 0.5]))
    solved, shares = solve_rows(rows, fixed_side(vectors), unobserved, penalties)
    expected, left = _by_normal_equations(rows, vectors, unobserved, penalties)
    np.testing.assert_allclose(solved, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(shares, left, rtol=2e-3, atol=2e-4)
    assert solved.dtype == np.float32


@pytest.mark.parametrize("is_stepped", [False, True])
def test_ones_that_take_no_memory_give_the_bits_of_ones_that_do(is_stepped: bool) -> None:
    random = np.random.default_rng(0)
    rows = random_rows(1, 300, 200, 0.2, "tenths")
    vectors, start = (random.standard_normal((n, 16)).astype(np.float32) for n in (200, 300))
    whole = CsrRows(rows.indptr, rows.indices, np.ones(rows.nnz, np.float32), 200)
    penalties = np.full(300, 0.5, np.float32)
    solved = [
        solve_rows(each, fixed_side(vectors), 0.1, penalties, start=start if is_stepped else None)
        for each in (whole, rows_of_ones(rows, 200))
    ]
    assert solved[0][0].tobytes() == solved[1][0].tobytes()
    assert solved[0][1].tobytes() == solved[1][1].tobytes()
    alone = [solve_rows(each, fixed_side(vectors), 0.1, penalties[:1]) for each in
             (whole.slice_rows(0, 1), rows_of_ones(whole.slice_rows(0, 1), 200))]  # fmt: skip
    assert alone[0][0].tobytes() == alone[1][0].tobytes()


@pytest.mark.parametrize("length", [47, 48, 64, CHUNK_ENTRIES, CHUNK_ENTRIES + 1, 3000])
def test_short_and_long_rows_meet(length: int) -> None:
    """Rows below and above three quarters of the dimensions are solved in different ways, long ones in chunks."""
    random = np.random.default_rng(length)
    vectors = (random.standard_normal((4000, 64)) / 8).astype(np.float32)
    dense = np.full((1, 4000), np.nan)
    dense[0, random.choice(4000, length, replace=False)] = 1.0
    rows, penalties = rows_of(dense), np.full(1, 0.5, np.float32)
    solved, shares = solve_rows(rows, fixed_side(vectors), 0.1, penalties)
    expected, left = _by_normal_equations(rows, vectors, 0.1, penalties)
    np.testing.assert_allclose(solved, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(shares, left, rtol=1e-3)


def test_short_rows_may_be_longer_than_a_chunk() -> None:
    """1,030 entries are less than three quarters of 1,400 dimensions."""
    random = np.random.default_rng(0)
    vectors = (random.standard_normal((1100, 1400)) / 37).astype(np.float32)
    rows = CsrRows(np.array([0, 1030]), np.arange(1030, dtype=np.int32), np.ones(1030, np.float32), 1100)
    solved, shares = solve_rows(rows, fixed_side(vectors), 0.1, np.full(1, 0.5, np.float32))
    expected, left = _by_normal_equations(rows, vectors, 0.1, np.full(1, 0.5, np.float32))
    np.testing.assert_allclose(solved, expected, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(shares, left, rtol=1e-3)


def test_a_row_by_hand() -> None:
    """Vectors 1 and 2, the second seen: (1 - 2x)^2 + .5 (x^2 + 4x^2) + x^2 is smallest at x = 2 / 7.5."""
    rows = CsrRows(np.array([0, 1, 1]), np.array([1], np.int32), np.ones(1, np.float32), 2)
    vectors = np.array([[1.0], [2.0]], np.float32)
    solved, shares = solve_rows(rows, fixed_side(vectors), 0.5, np.ones(2, np.float32))
    assert solved.tolist() == [[pytest.approx(2 / 7.5)], [0.0]]
    assert shares.tolist() == [pytest.approx((1 - 4 / 7.5) ** 2 + 3.5 * (2 / 7.5) ** 2), 0.0]


def test_rows_depend_on_nothing_beside_them() -> None:
    random = np.random.default_rng(3)
    vectors = random.standard_normal((500, 16)).astype(np.float32)
    rows, penalties = random_rows(3, 9000, 500, 0.03, "half stars"), random.uniform(1, 9, 9000).astype(np.float32)
    fixed = fixed_side(vectors)
    whole, shares = solve_rows(rows, fixed, 0.1, penalties)
    threaded, shares_of_threads = solve_rows(rows, fixed, 0.1, penalties, threads=3)
    assert whole.tobytes() == threaded.tobytes()
    assert shares.tobytes() == shares_of_threads.tobytes()
    part, shares_of_part = solve_rows(rows.slice_rows(4000, 4100), fixed, 0.1, penalties[4000:4100])
    assert part.tobytes() == whole[4000:4100].tobytes()
    assert shares_of_part.tobytes() == shares[4000:4100].tobytes()
    start = random.standard_normal((9000, 16)).astype(np.float32)
    stepped, _ = solve_rows(rows, fixed, 0.1, penalties, start=start)
    threaded, _ = solve_rows(rows, fixed, 0.1, penalties, threads=3, start=start)
    assert stepped.tobytes() == threaded.tobytes() != whole.tobytes()
    part, _ = solve_rows(rows.slice_rows(4000, 4100), fixed, 0.1, penalties[4000:4100], start=start[4000:4100])
    assert part.tobytes() == stepped[4000:4100].tobytes()


@given(st.data())
@settings(max_examples=40)
def test_steps_lead_to_the_solution(data: st.DataObject) -> None:
    """A call lowers what is left unless it is solved; many calls end where the normal equations say."""
    seed, dims = data.draw(st.integers(0, 999)), data.draw(st.sampled_from([1, 7, 24]))
    random = np.random.default_rng(seed)
    vectors = (random.standard_normal((300, dims)) / np.sqrt(dims)).astype(np.float32)
    rows = random_rows(seed, 6, 300, data.draw(st.sampled_from([0.06, 0.5])), "tenths")
    penalties = random.uniform(0.5, 3.0, 6).astype(np.float32)
    fixed, unobserved = fixed_side(vectors), data.draw(st.sampled_from([0.0, 0.1]))
    expected, lowest = _by_normal_equations(rows, vectors, unobserved, penalties)
    solved = random.standard_normal((6, dims)).astype(np.float32)
    before = np.full(6, np.inf)
    for _ in range(20):
        solved, shares = solve_rows(rows, fixed, unobserved, penalties, start=solved)
        assert (shares <= before * (1 + 1e-5)).all()
        before = shares
    np.testing.assert_allclose(solved, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(shares, lowest, rtol=2e-3, atol=2e-4)


def test_three_steps_come_near_and_a_solution_stays() -> None:
    random = np.random.default_rng(5)
    vectors = (random.standard_normal((2000, 64)) / 8).astype(np.float32)
    rows, penalties = random_rows(5, 20, 2000, 0.15, "half stars"), np.full(20, 5.0, np.float32)
    fixed = fixed_side(vectors)
    exact, lowest = solve_rows(rows, fixed, 0.1, penalties)
    stepped, left = solve_rows(rows, fixed, 0.1, penalties, start=np.zeros_like(exact))
    assert not np.array_equal(stepped, exact), "rows of 300 entries are stepped"
    assert ((left >= lowest * (1 - 1e-6)) & (left < 1.01 * lowest)).all()
    stayed, _ = solve_rows(rows, fixed, 0.1, penalties, start=exact)
    np.testing.assert_allclose(stayed, exact, atol=1e-5)


ROWS = CsrRows(np.array([0, 2]), np.array([0, 1], np.int32), np.ones(2, np.float32), 2)
ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("rows", "columns", "penalties", "message"),
    [
        (ROWS, 3, ONE, "rows have 2 columns, the fixed side 3 vectors"),
        (ROWS, 2, 0 * ONE, "penalties must be above 0"),
        (ROWS, 2, np.ones(2, np.float32), r"of shape \(1,\), got \(2,\)"),
        (CsrRows(ROWS.indptr, ROWS.indices, -ROWS.values, 2), 2, ONE, "weights must be 0 or above, got -1.0"),
    ],
)
def test_what_cannot_be_solved_is_refused(rows: CsrRows, columns: int, penalties: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_rows(rows, fixed_side(np.ones((columns, 2), np.float32)), 0.1, penalties)


def test_a_start_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start must be of shape \(1, 2\), got \(2, 2\)"):
        solve_rows(ROWS, fixed_side(np.ones((2, 2), np.float32)), 0.1, ONE, start=np.ones((2, 2), np.float32))


def test_a_vector_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="vector 1 is not finite"):
        fixed_side(np.array([[1.0], [np.nan]], np.float32))
