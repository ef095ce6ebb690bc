import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.pooling import session_weights
from tests.kernels.cases import random_rows


@given(seed=st.integers(0, 500), most=st.integers(1, 5), half_life=st.sampled_from([0.5, 1.0, 7.0]))
@settings(max_examples=60, deadline=None)
def test_the_newest_count_most(seed: int, most: int, half_life: float) -> None:
    """Each row sorted by itself: the newest first, those without an age last, equal ones by column."""
    rows = random_rows(seed, 6, 8, 0.6, "ones")
    random = np.random.default_rng(seed)
    ages = np.where(random.random(rows.nnz) < 0.2, np.nan, random.integers(0, 4, rows.nnz)).astype(np.float32)
    expected = np.zeros(rows.nnz)
    for row in range(rows.n_rows):
        entries = range(rows.indptr[row], rows.indptr[row + 1])
        order = sorted(entries, key=lambda entry: (np.isnan(ages[entry]), ages[entry], rows.indices[entry]))
        for rank, entry in enumerate(order[:most]):
            expected[entry] = 2 ** (-rank / half_life)
    np.testing.assert_allclose(session_weights(rows, ages, most, half_life), expected, rtol=1e-6)


def test_rows_of_nothing_have_no_weights() -> None:
    nothing = CsrRows(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 2)
    assert session_weights(nothing, np.zeros(0, np.float32), 3, 1.0).shape == (0,)
