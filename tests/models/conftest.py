"""Catalogues with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.interactions import TrainingPairs


def split_checkerboard(n_users: int = 60, n_items: int = 40, seed: int = 0) -> tuple[TrainingPairs, TrainingPairs]:
    """Even users have even items and odd users odd ones: each some of their half to train on, and two to validate."""
    random = np.random.default_rng(seed)
    train, validation = [], []
    for user in range(n_users):
        half = random.permutation(np.arange(user % 2, n_items, 2))
        train += [(user, item) for item in half[2 : len(half) // 2]]
        validation += [(user, item) for item in half[:2]]
    return to_pairs(train, n_users, n_items), to_pairs(validation, n_users, n_items)


def to_pairs(
    listed: list[tuple[int, int]], n_users: int, n_items: int, rating: list[float] | None = None
) -> TrainingPairs:
    idx = np.array(listed, dtype=np.int32).reshape(-1, 2)
    ratings = np.array(rating, dtype=np.float32) if rating else np.ones(len(idx), np.float32)
    return TrainingPairs(idx[:, 0], idx[:, 1], ratings, n_users, n_items)


@pytest.fixture
def tiny() -> ModelSettings:
    return ModelSettings(embedding_dim=8, batch_size=64, epochs=12, patience=3)
