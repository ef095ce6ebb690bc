"""The spectral model against singular vectors of the whole matrix."""

import itertools

import numpy as np
import pytest

from recsys_spark.errors import RecsysError
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.training import fit_embeddings
from tests.models.conftest import split_checkerboard, to_pairs

SPECTRAL = ModelSettings(loss="spectral", embedding_dim=6)


def test_scores_are_the_low_pass_of_the_leading_singular_vectors() -> None:
    random = np.random.default_rng(0)
    popularity = 1 / (1 + np.arange(30))
    listed = [(u, i) for u in range(50) for i in range(30) if random.random() < 0.05 + popularity[i] or i == u % 30]
    pairs = to_pairs(listed, 50, 30)
    seen = np.zeros((50, 30))
    seen[pairs.user_idx, pairs.item_idx] = 1
    user_scale, item_scale = np.sqrt(seen.sum(axis=1, keepdims=True)), np.sqrt(seen.sum(axis=0))
    _, values, right = np.linalg.svd(seen / user_scale / item_scale)
    expected = (seen / item_scale) @ right[:6].T @ right[:6] * item_scale
    fit = fit_embeddings(pairs, SPECTRAL, 0, epochs=300)
    users, items = fit.embeddings.user_vectors, fit.embeddings.item_vectors
    np.testing.assert_allclose(users @ items.T, expected, atol=1e-3)
    assert fit.history[-1].loss == pytest.approx(1 - (values[:6] ** 2).sum() / (values**2).sum(), abs=1e-4)
    losses = [log.loss for log in fit.history]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(losses))


def test_a_warm_start_goes_on() -> None:
    train, _ = split_checkerboard()
    earlier = fit_embeddings(train, SPECTRAL, 0, epochs=10)
    warm = fit_embeddings(train, SPECTRAL, 1, epochs=1, warm_start=earlier.embeddings)
    cold = fit_embeddings(train, SPECTRAL, 1, epochs=1)
    assert warm.history[0].loss < earlier.history[-1].loss + 1e-6 < cold.history[0].loss


def test_more_dimensions_than_items_are_refused() -> None:
    with pytest.raises(RecsysError, match=r"below the users and items that are trained, 3 and 2, .* got 6"):
        fit_embeddings(to_pairs([(0, 0), (1, 1), (2, 0)], 3, 2), SPECTRAL, 0)
