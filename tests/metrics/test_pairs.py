from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.metrics.pairs import draw_items, share_below


def test_items_are_drawn_evenly_and_by_user_and_seed_alone() -> None:
    users = np.arange(2_000, dtype=np.int32)
    drawn = draw_items(users, 50, 10, seed=1)
    assert drawn.min() == 0
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert counts == pytest.approx(np.full(10, 10_000), rel=0.05)
    assert (draw_items(users[7:8], 50, 10, seed=1) == drawn[7]).all()
    assert (draw_items(users, 20, 10, seed=1) == drawn[:, :20]).all()
    assert (draw_items(users, 50, 10, seed=2) != drawn).mean() == pytest.approx(0.9, abs=0.02)
    first, second = drawn[:, 0], drawn[:, 1]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.07


def test_shares_below_count_ties_by_half() -> None:
    others = np.array([[1.0, 2.0, 3.0, 9.0], [5.0, 5.0, 5.0, 5.0]], np.float32)
    counts = np.array([[True, True, True, False], [False] * 4])
    shares = share_below(np.array([2.0, 4.0, 1.0], np.float32), np.array([0, 0, 1]), others, counts)
    assert shares[:2].tolist() == [pytest.approx(1.5 / 3), 1.0]
    assert np.isnan(shares[2]), "nothing to compare with"
