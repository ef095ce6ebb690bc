import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.network import ITEM_FACTS, Network, network_scores, ranking_features


def random_network(seed: int, features: int) -> Network:
    random = np.random.default_rng(seed)
    shapes = [(features,), (features,), (5, features), (5,), (3, 5), (3,), (3,)]
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    arrays[1] = np.abs(arrays[1]) + np.float32(0.1)
    return Network(*arrays)


@given(seed=st.integers(0, 1000), rows=st.integers(0, 9), width=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_scores_are_those_of_the_layers(seed: int, rows: int, width: int) -> None:
    random, network = np.random.default_rng(seed), random_network(seed, width)
    features = random.standard_normal((rows, width)).astype(np.float32)
    sums = random.standard_normal(rows).astype(np.float32)
    found = network_scores(features, sums, network)
    wide = [array.astype(np.float64) for array in network]
    below = np.maximum((features - wide[0]) / wide[1] @ wide[2].T + wide[3], 0)
    above = np.maximum(below @ wide[4].T + wide[5], 0)
    np.testing.assert_allclose(found, sums + above @ wide[6], atol=1e-3, rtol=1e-4)
    for row in range(rows):
        np.testing.assert_array_equal(network_scores(features[[row]], sums[[row]], network), found[[row]])


def test_features_stand_in_one_order() -> None:
    scores, facts = np.array([[1, 2], [3, 4]], np.float32), np.arange(2 * ITEM_FACTS, dtype=np.float32).reshape(2, -1)
    features = ranking_features(scores, np.array([5, 6], np.float32), np.array([0, 9]), facts)
    expected = [[1, 2, 5, 0, 0, 1, 2, 3], [3, 4, 6, np.log(10), 4, 5, 6, 7]]
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    assert features.dtype == np.float32
