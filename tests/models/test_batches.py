import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.models.batches import STEPS_AT_ONCE, PairBatches, StepGroups, UserBatches
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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 20), st.integers(0, 3))
def test_batches_of_users_hold_every_pair_once_with_its_user(counts: list[int], batch_size: int, epoch: int) -> None:
    listed = [(user, item) for user, count in enumerate(counts) for item in range(count)] or [(0, 0)]
    pairs = to_pairs(listed, len(counts), 10, [(user + 10 * item) / 200 for user, item in listed])
    batches, held, sizes = UserBatches(pairs, batch_size, 1, epoch), [], set()
    for batch in range(len(batches)):
        (users, rows, items), ratings, weights = batches[batch]
        assert len(rows) == len(items) == len(ratings) == len(weights) == min(batch_size, len(pairs))
        assert np.allclose(ratings * 200, users[rows] + 10 * items)
        sizes.add(len(users))
        held += [(int(users[row]), int(item)) for row, item, w in zip(rows, items, weights, strict=True) if w]
    assert sorted(held) == listed
    assert len(sizes) == 1


def test_users_of_a_batch_are_whole_and_in_an_order_of_the_epoch() -> None:
    pairs = to_pairs([(user, item) for user in range(40) for item in range(3)], 40, 3)

    def users_in_turn(batches: UserBatches) -> list[int]:
        return [int(users[row]) for number in range(len(batches)) for (users, rows, _), _, _ in [batches[number]]
                for row in rows]  # fmt: skip

    batches = UserBatches(pairs, 30, seed=1)
    first = users_in_turn(batches)
    assert all(len(set(first[start : start + 3])) == 1 for start in range(0, 120, 3))
    assert len(batches[0][0][0]) == 16  # of 10, rounded up
    batches.on_epoch_end()
    assert users_in_turn(batches) == users_in_turn(UserBatches(pairs, 30, seed=1, epoch=1)) != first


@pytest.mark.parametrize("users", [1, 15, 16, 17, 33, 241])
@pytest.mark.parametrize("kind", [PairBatches, UserBatches])
def test_groups_hold_every_batch_once_in_turn(users: int, kind: type[PairBatches] | type[UserBatches]) -> None:
    pairs = to_pairs([(user, item) for user in range(users) for item in range(2)], users, 2)
    batches, groups = kind(pairs, 2, 0), StepGroups(kind(pairs, 2, 0))
    joined = [groups[number] for number in range(len(groups))]
    assert {len(ratings) for _, ratings, _ in joined} == {2 * groups.size}
    assert groups.size <= STEPS_AT_ONCE
    for place in range(2):
        known = np.concatenate([batches[number][0][place] for number in range(len(batches))])
        assert np.array_equal(np.concatenate([idx[place] for idx, _, _ in joined])[: len(known)], known)
    weights = np.concatenate([weights for _, _, weights in joined])
    assert weights[: 2 * len(batches)].sum() == len(pairs)
    assert not weights[2 * len(batches) :].any()
    groups.on_epoch_end()
    batches.on_epoch_end()
    assert np.array_equal(groups[0][0][0][: len(batches[0][0][0])], batches[0][0][0])
