"""Losses against the formulas worked out by hand."""

from math import exp, log

import numpy as np
import pytest

from recsys_spark.models.losses import PAIR_LOSSES, Scores, SharedScores, cosine_contrastive, softmax


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


SCORES = Scores(
    positive=np.array([0.5, -1.0, 2.0], np.float32),
    negative=np.array([[0.0, 1.0], [-2.0, 0.5], [0.0, 0.0]], np.float32),
    # The second sample has one true negative, the third none.
    is_negative=np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], np.float32),
    rating=np.array([1.0, 0.0, 0.25], np.float32),
)

EXPECTED = {
    "mse": [0.25, 1.0, 1.75**2],
    "rating_bce": [
        -log(sigmoid(0.5)),
        -log(1 - sigmoid(-1.0)),
        -0.25 * log(sigmoid(2.0)) - 0.75 * log(1 - sigmoid(2.0)),
    ],
    "bpr": [-(log(sigmoid(0.5)) + log(sigmoid(-0.5))) / 2, -log(sigmoid(1.0)), 0.0],
    "bce": [
        -log(sigmoid(0.5)) - log(sigmoid(0.0)) - log(sigmoid(-1.0)),
        -log(sigmoid(-1.0)) - log(sigmoid(2.0)),
        -log(sigmoid(2.0)),
    ],
}


@pytest.mark.parametrize("name", sorted(PAIR_LOSSES))
def test_loss_equals_its_formula(name: str) -> None:
    assert np.asarray(PAIR_LOSSES[name](SCORES)) == pytest.approx(EXPECTED[name], rel=1e-6)


# Four pairs of two users, and three items that both share; the second user has one true negative among them.
SHARED = SharedScores(
    positive=np.array([0.5, -0.2, 0.9, 0.0], np.float32),
    rows=np.array([0, 0, 1, 1], np.int32),
    negative=np.array([[0.1, 0.7, -0.4], [0.6, 0.2, 0.3]], np.float32),
    is_negative=np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], np.float32),
    log_expected=np.log(np.array([0.5, 2.0, 1.0], np.float32)),
)


def test_softmax_equals_its_formula() -> None:
    temperature = 0.5
    rivals = [exp(0.1 / 0.5) / 0.5 + exp(0.7 / 0.5) / 2.0 + exp(-0.4 / 0.5), exp(0.6 / 0.5) / 0.5]
    own = [exp(positive / temperature) for positive in (0.5, -0.2, 0.9, 0.0)]
    expected = [-log(each / (each + rivals[row])) for each, row in zip(own, (0, 0, 1, 1), strict=True)]
    assert np.asarray(softmax(SHARED, temperature)) == pytest.approx(expected, rel=1e-5)


def test_cosine_contrastive_equals_its_formula() -> None:
    negative = [(0.0 + 0.5 + 0.0) / 3, 0.4]  # above a margin of .2
    expected = [1 - 0.5 + 5 * negative[0], 1 + 0.2 + 5 * negative[0], 1 - 0.9 + 5 * negative[1], 1 + 5 * negative[1]]
    assert np.asarray(cosine_contrastive(SHARED, 0.2, 5.0)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_a_user_without_a_true_negative_costs_a_softmax_nothing(temperature: float) -> None:
    nothing = np.zeros_like(SHARED.is_negative)
    scores = SharedScores(SHARED.positive, SHARED.rows, SHARED.negative, nothing, SHARED.log_expected)
    assert np.asarray(softmax(scores, temperature)).tolist() == [0, 0, 0, 0]
