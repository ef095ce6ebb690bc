"""Losses against the formulas worked out by hand."""

from math import exp, log

import numpy as np
import pytest

from recsys_spark.models.losses import LOSSES, Scores


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
    "bpr": [-(log(sigmoid(0.5)) + log(sigmoid(-0.5))) / 2, -log(sigmoid(1.0)), 0.0],
    "bce": [
        -log(sigmoid(0.5)) - log(sigmoid(0.0)) - log(sigmoid(-1.0)),
        -log(sigmoid(-1.0)) - log(sigmoid(2.0)),
        -log(sigmoid(2.0)),
    ],
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_equals_its_formula(name: str) -> None:
    assert np.asarray(LOSSES[name].function(SCORES)) == pytest.approx(EXPECTED[name], rel=1e-6)
