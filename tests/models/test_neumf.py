"""The hidden layer beside the dot product: against plain NumPy, and where a dot product cannot follow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.hidden import HiddenLayer, hidden_scores, hidden_scores_of_all
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.neumf import NeumfModel, random_layer
from recsys_spark.models.training import fit_embeddings
from tests.models.conftest import split_checkerboard, to_pairs


def random_floats(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def by_hand(users: np.ndarray, items: np.ndarray, layer: HiddenLayer) -> np.ndarray:
    """Of each user with each item, in float64."""
    parts = (users @ layer.of_users.T.astype(float))[:, None] + (items @ layer.of_items.T.astype(float)) + layer.biases
    scores: np.ndarray = np.maximum(parts, 0) @ layer.output.astype(float)
    return scores


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
def test_hidden_scores_are_those_of_the_layer(dims: int, units: int, users: int, items: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    layer = HiddenLayer(
        *(random_floats(random, *shape) for shape in ((units, dims), (units, dims), (units,), (units,)))
    )
    user_vectors, item_vectors = random_floats(random, users, dims), random_floats(random, items, dims)
    expected = by_hand(user_vectors, item_vectors, layer)
    assert hidden_scores_of_all(user_vectors, item_vectors, layer) == pytest.approx(expected, abs=1e-3, rel=1e-3)
    pairs = random.integers(0, users, 7), random.integers(0, items, 7)
    scores = hidden_scores(user_vectors[pairs[0]], item_vectors[pairs[1]], layer)
    assert scores == pytest.approx(expected[pairs], abs=1e-3, rel=1e-3)
    alone = [hidden_scores(user_vectors[[u]], item_vectors[[i]], layer)[0] for u, i in zip(*pairs, strict=True)]
    assert scores.tolist() == alone


def test_the_model_scores_and_ranks_as_the_kernel_does() -> None:
    random = np.random.default_rng(0)
    model = NeumfModel(5, 9, 4, 3)
    model.hidden = random_layer(3, 4, seed=1)
    users, items, biases = random_floats(random, 5, 4), random_floats(random, 9, 4), random_floats(random, 9)
    model.users.assign(users)
    model.items.assign(items, biases)
    expected = users @ items.T + biases + by_hand(users, items, model.hidden)
    scored = model.score(model.users(np.arange(5))[:, None], model.items(np.arange(9))[None])
    assert np.asarray(scored) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    seen = IndexLists(np.array([0, 2, 2]), np.array([0, 5], np.int32))  # of the second and the fourth user
    best = model.best_items(np.array([1, 3]), seen, 8)
    first = [item for item in np.argsort(-expected[1]) if item not in (0, 5)]
    assert best.tolist() == [[*first, -1], np.argsort(-expected[3])[:8].tolist()]


def test_it_learns_what_no_product_of_two_numbers_each_can() -> None:
    # Rated by how near both are on a line: a product of two dimensions misses a good part of it.
    places = np.linspace(-1, 1, 30)
    listed = [(user, item) for user in range(30) for item in range(30)]
    ratings = [float(np.exp(-4 * (places[user] - places[item]) ** 2)) for user, item in listed]
    pairs = to_pairs(listed, 30, 30, ratings)
    chosen = {"loss": "mse", "embedding_dim": 2, "epochs": 40, "l2": 0.0, "batch_size": 64}

    def error(architecture: str) -> float:
        model = ModelSettings.model_validate({**chosen, "architecture": architecture})
        return fit_embeddings(pairs, model, 0).history[-1].loss

    assert error("neumf") < 0.3 * error("dot")


def test_a_checkerboard_is_learned(tiny: ModelSettings) -> None:
    train, validation = split_checkerboard()
    chosen = tiny.model_copy(update={"architecture": "neumf", "loss": "bce", "hidden_units": 8})
    fit = fit_embeddings(train, chosen, 0, validation=validation)
    assert fit.popularity_ndcg is not None
    assert max(log.validation_ndcg or 0 for log in fit.history) > 1.5 * fit.popularity_ndcg
    assert fit.embeddings.hidden is not None
