import numpy as np

from recsys_spark.models.batches import PairBatches
from tests.models.conftest import to_pairs

PAIRS = to_pairs([(user, item) for user in range(5) for item in range(2)], 5, 2)


def one_epoch(batches: PairBatches) -> list[tuple[int, int]]:
    real = []
    for batch in range(len(batches)):
        (users, items), _, weights = batches[batch]
        assert len(users) == len(items) == len(weights) == 4
        real += [(int(user), int(item)) for user, item, weight in zip(users, items, weights, strict=True) if weight]
    return real


def test_an_epoch_holds_every_pair_once_and_the_padding_weighs_nothing() -> None:
    batches = PairBatches(PAIRS, 4, seed=0)
    assert len(batches) == 3
    assert sorted(one_epoch(batches)) == sorted(zip(PAIRS.user_idx.tolist(), PAIRS.item_idx.tolist(), strict=True))
    assert batches[2][2].tolist() == [1, 1, 0, 0]


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    first, second = PairBatches(PAIRS, 4, seed=1), PairBatches(PAIRS, 4, seed=1)
    orders = []
    for _ in range(3):
        orders.append(one_epoch(first))
        assert one_epoch(second) == orders[-1]
        first.on_epoch_end()
        second.on_epoch_end()
    assert orders[0] != orders[1] != orders[2]
    assert one_epoch(PairBatches(PAIRS, 4, seed=2)) != orders[0]


def test_ratings_stay_with_their_pairs() -> None:
    pairs = to_pairs([(0, 0), (0, 1), (1, 0)], 2, 2, [0.0, 0.5, 1.0])
    (users, items), ratings, _ = PairBatches(pairs, 100, seed=0)[0]
    assert np.allclose(ratings, users + 0.5 * items)
