import numpy as np
import pytest

from recsys_spark.models import negatives
from recsys_spark.models.backend import tf
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.negatives import NegativeSampler, SeenFilter
from tests.models.conftest import to_pairs


def contains_all(seen: SeenFilter, n_users: int, n_items: int) -> np.ndarray:
    users, items = np.meshgrid(np.arange(n_users, dtype=np.int32), np.arange(n_items, dtype=np.int32), indexing="ij")
    compiled = tf.function(seen.contains, jit_compile=True)
    return np.asarray(compiled(tf.constant(users), tf.constant(items)))


def random_pairs(n_users: int, n_items: int, share: float) -> tuple[TrainingPairs, np.ndarray]:
    is_seen = np.random.default_rng(0).random((n_users, n_items)) < share
    listed = [(int(user), int(item)) for user, item in np.argwhere(is_seen)]
    return to_pairs(listed, n_users, n_items), is_seen


def test_a_small_matrix_is_kept_exactly() -> None:
    pairs, is_seen = random_pairs(50, 30, 0.2)
    assert (contains_all(SeenFilter(pairs), 50, 30) == is_seen).all()


def test_a_large_matrix_finds_every_seen_pair_and_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "SMALLEST_FILTER", 8)
    pairs, is_seen = random_pairs(500, 300, 0.01)
    found = contains_all(SeenFilter(pairs), 500, 300)
    assert found[is_seen].all()
    assert 0.03 < found[~is_seen].mean() < 1.2 / negatives.BITS_PER_PAIR


def test_negatives_depend_on_seed_and_step_only_and_never_are_seen() -> None:
    pairs = to_pairs([(0, 0), (0, 1), (1, 2)], 2, 4)
    users = tf.constant([0, 1, 0, 1, 1], tf.int32)

    def draw(seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        items, is_negative = tf.function(NegativeSampler(pairs, 100, seed).sample, jit_compile=True)(users, step)
        return np.asarray(items), np.asarray(is_negative)

    items, is_negative = draw(7, 3)
    assert items.shape == (5, 100)
    assert set(items[0][is_negative[0]]) == {2, 3}
    assert set(items[1][is_negative[1]]) == {0, 1, 3}
    assert (draw(7, 3)[0] == items).all()
    assert (draw(7, 4)[0] != items).any()
    assert (draw(8, 3)[0] != items).any()


def test_negatives_are_uniform() -> None:
    sampler = NegativeSampler(to_pairs([(0, 0)], 1, 5), 4000, 0)
    items, _ = sampler.sample(tf.constant([0], tf.int32), tf.constant(0))
    counts = np.bincount(np.asarray(items)[0], minlength=5)
    assert abs(counts - 800).max() < 100  # four standard deviations of 25
