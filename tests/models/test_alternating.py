"""Alternating least squares against the same minimisation done pair by pair in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.kernels.least_squares import WholeDataLoss
from recsys_spark.model_sections import LEAST_IALS_L2, ModelSettings
from recsys_spark.models.alternating import AlternatingModel
from recsys_spark.models.closed_form import StepNumbers
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings
from tests.models.conftest import split_checkerboard, to_pairs

Wide = NDArray[np.float64]
LOSS = WholeDataLoss(unobserved_weight=0.2, l2=0.05)


def _seen(pairs: TrainingPairs) -> Wide:
    dense = np.zeros((pairs.n_users, pairs.n_items))
    dense[pairs.user_idx, pairs.item_idx] = 1.0
    return dense


def _solved(seen: Wide, fixed: Wide) -> Wide:
    """The rows that minimise the loss with the other side fixed."""
    rows = np.zeros((len(seen), fixed.shape[1]))
    for row, has in enumerate(seen):
        penalty = LOSS.l2 * (has.sum() + LOSS.unobserved_weight * len(fixed))
        weights = has + LOSS.unobserved_weight
        matrix = fixed.T @ (weights[:, None] * fixed) + penalty * np.eye(fixed.shape[1])
        rows[row] = np.linalg.solve(matrix, fixed.T @ has)
    return rows


def _loss(seen: Wide, users: Wide, items: Wide, solved: Wide, fixed: Wide, by_row: Wide) -> float:
    """As `WholeDataLoss` says, with the penalty of the side that was solved, a pair."""
    scores = users @ items.T
    total = (seen * (1 - scores) ** 2).sum() + LOSS.unobserved_weight * (scores**2).sum()
    penalties = LOSS.l2 * (by_row.sum(axis=1) + LOSS.unobserved_weight * len(fixed))
    return float((total + penalties @ (solved**2).sum(axis=1)) / seen.sum())


def test_passes_equal_those_in_float64() -> None:
    pairs, _ = split_checkerboard(30, 20)
    seen = _seen(pairs)
    model = AlternatingModel(30, 20, 6)
    model.compile(LOSS, pairs)
    items = np.random.default_rng(0).standard_normal((20, 6)) / 10
    model.items.assign(items)
    logs = model.fit(StepNumbers(2), epochs=3, verbose=0, shuffle=False).history["loss"]
    for epoch in range(3):
        users = _solved(seen, items)
        after_users = _loss(seen, users, items, users, items, seen)
        items = _solved(seen.T, users)
        after_items = _loss(seen, users, items, items, users, seen.T)
        assert logs[epoch] == pytest.approx((after_users + after_items) / 2, rel=1e-4)
    np.testing.assert_allclose(model.users.vectors(), users, atol=1e-4)
    np.testing.assert_allclose(model.items.vectors(), items, atol=1e-4)


def test_a_user_nobody_saw_and_rows_of_all_lengths() -> None:
    listed = [(0, item) for item in range(8)] + [(1, 0), (3, 2), (3, 7)]
    settings = ModelSettings(loss="ials", embedding_dim=4)
    fit = fit_embeddings(to_pairs(listed, 4, 9), settings, 0, epochs=3)
    assert fit.embeddings.is_trained_user.tolist() == [True, True, False, True]
    assert not fit.embeddings.user_vectors[2].any()
    assert np.isfinite(fit.embeddings.user_vectors).all()
    assert not fit.embeddings.item_biases.any()


def test_a_warm_start_is_where_the_earlier_fit_ended() -> None:
    train, _ = split_checkerboard()
    settings = ModelSettings(loss="ials", embedding_dim=8)
    earlier = fit_embeddings(train, settings, 0, epochs=30)
    warm = fit_embeddings(train, settings, 7, epochs=1, warm_start=earlier.embeddings)
    cold = fit_embeddings(train, settings, 7, epochs=1)
    assert warm.history[0].loss == pytest.approx(earlier.history[-1].loss, rel=1e-3)
    assert cold.history[0].loss > 1.2 * warm.history[0].loss


def test_biases_of_another_loss_are_left_behind() -> None:
    train, _ = split_checkerboard()
    other = fit_embeddings(train, ModelSettings(loss="bpr", embedding_dim=8), 0, epochs=3).embeddings
    assert other.item_biases.any()
    fit = fit_embeddings(train, ModelSettings(loss="ials", embedding_dim=8), 0, epochs=1, warm_start=other)
    assert not fit.embeddings.item_biases.any()
    assert not fit.embeddings.user_biases.any()


def test_a_penalty_is_needed() -> None:
    with pytest.raises(ValueError, match="l2 must be at least 1e-05 for loss 'ials', got 1e-06"):
        ModelSettings(loss="ials", l2=1e-6)


def test_the_least_penalty_still_has_a_solution() -> None:
    """More dimensions than users or items, and everything seen: the matrices are singular but for the penalty."""
    listed = [(user, item) for user in range(6) for item in range(5)]
    settings = ModelSettings(loss="ials", embedding_dim=64, l2=LEAST_IALS_L2, unobserved_weight=1e-3)
    fit = fit_embeddings(to_pairs(listed, 6, 5), settings, 0, epochs=10)
    scores = fit.embeddings.user_vectors @ fit.embeddings.item_vectors.T
    assert scores == pytest.approx(np.ones((6, 5)), abs=0.05)
