import numpy as np

from recsys_spark.kernels.listed import listed_products, named_terms


def test_products_with_some_columns_of_listed_vectors() -> None:
    random = np.random.default_rng(0)
    queries, vectors = (
        random.standard_normal((3, 2)).astype(np.float32),
        random.standard_normal((6, 5)).astype(np.float32),
    )
    listed = np.array([[4, 0, -1], [5, 5, 1], [-1, -1, -1]])
    found = listed_products(queries, vectors, listed, first=2)
    products = queries.astype(float) @ vectors[:, 2:4].T
    expected = [[products[row, item] if item >= 0 else 0 for item in items] for row, items in enumerate(listed)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_terms_that_are_there_of_wanted_items() -> None:
    columns = np.array([[3, 1], [7, -1], [-1, -1], [2, 0]], np.int32)
    values = np.array([[0.5, 0.25], [1, 0], [0, 0], [2, 1]], np.float32)
    lists, found = named_terms(columns, values, np.array([True, True, True, False]))
    assert lists.indptr.tolist() == [0, 2, 3, 3, 3]
    assert lists.indices.tolist() == [3, 1, 7]
    assert found.tolist() == [0.5, 0.25, 1.0]
