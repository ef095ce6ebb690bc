import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.encoder import NORM_EPSILON, Encoder, encode_rows


def random_encoder(seed: int, n_items: int, width: int, dims: int, layers: int = 3) -> Encoder:
    random = np.random.default_rng(seed)
    shapes = (n_items, width), (layers, width), (layers - 1, width, width), (layers, width), (layers, width)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in (*shapes, (dims, width), (dims,))]
    return Encoder(*arrays, random.random(n_items) < 0.8)


def random_rows(seed: int, n_rows: int, n_items: int) -> tuple[CsrRows, np.ndarray]:
    random = np.random.default_rng([seed, 1])
    has = random.random((n_rows, n_items)) < random.random((n_rows, 1))
    users, items = np.nonzero(has)
    indptr = np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int64)
    return CsrRows(indptr, items.astype(np.int32), random.random(len(users)).astype(np.float32), n_items), has


def by_layers(has: np.ndarray, encoder: Encoder) -> np.ndarray:
    """What the docstring of `Encoder` says, in double precision, row by row."""
    vectors = np.zeros((len(has), len(encoder.outputs) + 1))
    for row, own in enumerate(has & encoder.is_known):
        if not own.any():
            continue
        layers: list[np.ndarray] = []
        for place, biases in enumerate(encoder.biases.astype(np.float64)):
            weights = encoder.inputs.T if place == 0 else encoder.hidden[place - 1]
            below = own / np.sqrt(own.sum()) if place == 0 else layers[-1]
            total = weights @ below + biases + sum(layers)
            swish = total / (1 + np.exp(-total))
            normal = (swish - swish.mean()) / np.sqrt(swish.var() + NORM_EPSILON)
            layers.append(normal * encoder.gains[place] + encoder.shifts[place])
        vectors[row] = *(encoder.outputs @ layers[-1] + encoder.output_biases), 1.0
    return vectors


@given(
    seed=st.integers(0, 1000),
    n_rows=st.integers(0, 6),
    n_items=st.integers(1, 40),
    width=st.integers(1, 20),
    dims=st.integers(1, 9),
    layers=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_vectors_are_those_of_the_layers(
    seed: int, n_rows: int, n_items: int, width: int, dims: int, layers: int
) -> None:
    encoder = random_encoder(seed, n_items, width, dims, layers)
    rows, has = random_rows(seed, n_rows, n_items)
    found = encode_rows(rows, encoder)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_layers(has, encoder), rtol=1e-3, atol=1e-3)
    for row in range(n_rows):
        np.testing.assert_array_equal(encode_rows(rows.take_rows(np.array([row])), encoder), found[[row]])


def test_a_row_without_a_known_item_is_nothing() -> None:
    encoder = random_encoder(0, 3, 4, 2)._replace(is_known=np.array([True, False, True]))
    rows = CsrRows(np.array([0, 0, 1, 3]), np.array([1, 0, 1], np.int32), np.ones(3, np.float32), 3)
    found = encode_rows(rows, encoder)
    assert not found[:2].any()
    alone = CsrRows(np.array([0, 1]), np.array([0], np.int32), np.ones(1, np.float32), 3)
    np.testing.assert_array_equal(found[[2]], encode_rows(alone, encoder))


def test_rows_of_other_items_are_refused() -> None:
    rows = CsrRows(np.array([0, 1]), np.array([2], np.int32), np.ones(1, np.float32), 3)
    with pytest.raises(ValueError, match="rows have 3 columns, but there are vectors of 4 items"):
        encode_rows(rows, random_encoder(0, 4, 4, 2))
