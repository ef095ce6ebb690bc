import numpy as np
import pytest
import tensorflow as tf

from recsys_spark.models import negatives
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.negatives import AllItems, ItemSampler, NegativeSampler, SeenFilter, SharedNegatives
from tests.models.conftest import to_pairs


def contains_all(seen: SeenFilter, n_users: int, n_items: int) -> np.ndarray:
    users, items = np.meshgrid(np.arange(n_users, dtype=np.int32), np.arange(n_items, dtype=np.int32), indexing="ij")
    compiled = tf.function(seen.contains, jit_compile=True)
    return np.asarray(compiled(tf.constant(users), tf.constant(items)))


def random_pairs(n_users: int, n_items: int, share: float) -> tuple[TrainingPairs, np.ndarray]:
    is_seen = np.random.default_rng(0).random((n_users, n_items)) < share
    listed = [(int(user), int(item)) for user, item in np.argwhere(is_seen)]
    return to_pairs(listed, n_users, n_items), is_seen


def uniform(pairs: TrainingPairs, seed: int) -> ItemSampler:
    return ItemSampler(pairs.item_counts(), 0.0, seed)


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
        items, is_negative = tf.function(NegativeSampler(pairs, 100, uniform(pairs, seed)).sample, jit_compile=True)(
            users, step
        )
        return np.asarray(items), np.asarray(is_negative)

    items, is_negative = draw(7, 3)
    assert items.shape == (5, 100)
    assert set(items[0][is_negative[0]]) == {2, 3}
    assert set(items[1][is_negative[1]]) == {0, 1, 3}
    assert (draw(7, 3)[0] == items).all()
    assert (draw(7, 4)[0] != items).any()
    assert (draw(8, 3)[0] != items).any()


def test_negatives_are_uniform() -> None:
    pairs = to_pairs([(0, 0)], 1, 5)
    items, _ = NegativeSampler(pairs, 4000, uniform(pairs, 0)).sample(tf.constant([0], tf.int32), tf.constant(0))
    counts = np.bincount(np.asarray(items)[0], minlength=5)
    assert abs(counts - 800).max() < 100  # four standard deviations of 25


def test_popular_items_are_drawn_by_the_power_of_their_count() -> None:
    counts = np.array([100, 25, 4, 1])
    sampler = ItemSampler(counts, 0.5, seed=3)
    assert sampler.shares == pytest.approx(np.array([10, 5, 2, 1]) / 18, rel=1e-4)
    drawn = np.bincount(np.asarray(sampler.draw((20_000,), tf.constant(0))), minlength=4) / 20_000
    assert abs(drawn - sampler.shares).max() < 0.015  # four standard deviations


def test_an_item_too_rare_for_its_share_is_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "SMALLEST_TABLE", 16)
    sampler = ItemSampler(np.array([10**9, 0, 1]), 1.0, seed=0)
    assert (sampler.shares > 0).all()
    assert sampler.shares.sum() == pytest.approx(1)


def shared_negatives(pairs: TrainingPairs, in_batch: bool, exponent: float = 1.0) -> SharedNegatives:
    return SharedNegatives(pairs, 200, ItemSampler(pairs.item_counts(), exponent, 5), in_batch, batch_size=8)


@pytest.mark.parametrize("in_batch", [False, True])
def test_shared_negatives_are_no_ones_seen_items(in_batch: bool) -> None:
    pairs, is_seen = random_pairs(20, 12, 0.3)
    users, rows = tf.constant([4, 9, 2]), tf.constant([0, 1, 1, 2])
    batch_items = tf.constant([5, 1, 3, 3])
    choose = tf.function(shared_negatives(pairs, in_batch).choose, jit_compile=True)
    shared = choose((users, rows, batch_items), tf.constant(1))
    items = np.asarray(shared.items)
    assert len(items) == (204 if in_batch else 200)
    assert items[200:].tolist() == ([5, 1, 3, 3] if in_batch else [])
    assert (np.asarray(shared.is_negative) == ~is_seen[np.ix_([4, 9, 2], items)]).all()


@pytest.mark.parametrize("in_batch", [False, True])
def test_what_is_expected_of_an_item_is_how_often_it_comes(in_batch: bool) -> None:
    pairs, _ = random_pairs(20, 12, 0.3)
    choose, counts, random = shared_negatives(pairs, in_batch, 0.5), np.zeros(12), np.random.default_rng(0)
    expected = np.zeros(12)
    for step in range(300):
        batch = random.choice(len(pairs), 8, replace=False)
        inputs = tf.constant([0]), tf.zeros(8, tf.int32), tf.constant(pairs.item_idx[batch])
        shared = choose.choose(inputs, tf.constant(step))
        items = np.asarray(shared.items)
        counts += np.bincount(items, minlength=12) / 300
        expected[items] = np.exp(np.asarray(shared.log_expected))
    assert counts == pytest.approx(expected, rel=0.05)


def test_all_items_are_negatives_but_those_of_the_batch() -> None:
    users, rows, items = tf.constant([7, 3]), tf.constant([0, 0, 1]), tf.constant([1, 2, 0])
    shared = tf.function(AllItems(4).choose, jit_compile=True)((users, rows, items), tf.constant(0))
    assert np.asarray(shared.items).tolist() == [0, 1, 2, 3]
    assert np.asarray(shared.is_negative).tolist() == [[True, False, False, True], [False, True, True, True]]
    assert np.asarray(shared.log_expected).tolist() == [0, 0, 0, 0]
