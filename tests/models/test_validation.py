import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.models.interactions import select_trained
from recsys_spark.models.validation import RankingValidation
from tests.models.conftest import to_pairs


def test_ndcg_of_two_users_by_hand() -> None:
    train = to_pairs([(0, 0), (1, 1), (1, 2), (2, 3)], 3, 5)  # item 4 is not trained
    validation = to_pairs([(0, 1), (1, 0), (1, 4)], 3, 5)
    referee = RankingValidation(select_trained(train, 1, 1), validation, 100, seed=0)
    assert referee.users.tolist() == [0, 1]
    scores = np.array([[9, 1, 2, 3], [1, 9, 9, 2]], np.float32)
    # User 0 gets 3, 2, 1: his item at rank 3. User 1 gets 3, 0: a hit at rank 2 of two relevant items.
    wanted = (1 / np.log2(4) + (1 / np.log2(3)) / (1 + 1 / np.log2(3))) / 2

    def best_items(users: NDArray[np.intp], seen: IndexLists, k: int) -> NDArray[np.intp]:
        assert users.tolist() == [0, 1]
        return score_top_k(scores, np.eye(4, dtype=np.float32), seen, k).indices

    assert referee.ndcg(best_items) == pytest.approx(wanted)


def test_popularity_lists_the_same_items_for_everybody() -> None:
    train = to_pairs([(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (2, 2)], 3, 3)
    validation = to_pairs([(0, 2), (1, 2)], 3, 3)
    referee = RankingValidation(select_trained(train, 1, 1), validation, 100, seed=0)
    assert referee.popularity_ndcg() == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_a_sample_of_users_depends_on_the_seed_only() -> None:
    train = to_pairs([(user, 0) for user in range(50)], 50, 2)
    validation = to_pairs([(user, 1) for user in range(50)], 50, 2)
    part = select_trained(train, 1, 1)
    first, second, other = (RankingValidation(part, validation, 10, seed).users for seed in (1, 1, 2))
    assert first.tolist() == second.tolist() == sorted(set(first.tolist()))
    assert len(first) == 10
    assert first.tolist() != other.tolist()
