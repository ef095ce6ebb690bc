import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from tests.kernels.cases import lists_of


class TestHits:
    def test_by_hand(self) -> None:
        recommended = np.array([[3, 1, 2], [1, 3, -1], [-1, -1, -1]])
        hits = hits_matrix(recommended, lists_of([[2, 3], [1, 7], [0]]))
        assert hits.tolist() == [[True, False, True], [True, False, False], [False] * 3]
        assert hits.dtype == np.bool_

    @given(st.lists(st.tuples(st.permutations(range(6)), st.sets(st.integers(0, 9))), max_size=6))
    def test_equals_set_membership(self, queries: list[tuple[list[int], set[int]]]) -> None:
        recommended = np.array([items[:4] for items, _ in queries], np.int32).reshape(-1, 4)
        hits = hits_matrix(recommended, lists_of([sorted(relevant) for _, relevant in queries]))
        assert hits.tolist() == [[item in relevant for item in items[:4]] for items, relevant in queries]

    def test_what_cannot_be_matched_is_refused(self) -> None:
        with pytest.raises(ValueError, match="1 recommended lists but 2 relevant ones"):
            hits_matrix(np.zeros((1, 2), int), lists_of([[1], [2]]))
        with pytest.raises(ValueError, match="recommended item 5 appears more than once for query row 1"):
            hits_matrix(np.array([[5, 4, -1], [5, -1, 5]]), lists_of([[1], [2]]))
        with pytest.raises(ValueError, match="relevant item 2 appears more than once for query row 0"):
            hits_matrix(np.array([[5, 4]]), lists_of([[2, 1, 2]]))


class TestMetrics:
    def test_one_list_by_hand(self) -> None:
        # Hits at ranks 2 and 4; three relevant items.
        metrics = ranking_metrics(np.array([[False, True, False, True]]), np.array([3]), [1, 2, 4])
        ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
        expected = {
            "recall@1": 0,
            "precision@1": 0,
            "hit_rate@1": 0,
            "ndcg@1": 0,
            "mrr@1": 0,
            "map@1": 0,
            "recall@2": 1 / 3,
            "precision@2": 1 / 2,
            "hit_rate@2": 1,
            "ndcg@2": (1 / math.log2(3)) / (1 + 1 / math.log2(3)),
            "mrr@2": 1 / 2,
            "map@2": (1 / 2) / 2,
            "recall@4": 2 / 3,
            "precision@4": 2 / 4,
            "hit_rate@4": 1,
            "ndcg@4": (1 / math.log2(3) + 1 / math.log2(5)) / ideal,
            "mrr@4": 1 / 2,
            "map@4": (1 / 2 + 2 / 4) / 3,
        }
        assert {name: values.tolist() for name, values in metrics.items()} == {
            name: pytest.approx([value]) for name, value in expected.items()
        }
        assert all(values.dtype == np.float64 for values in metrics.values())

    def test_a_perfect_list_scores_one_except_where_k_is_more_than_there_is(self) -> None:
        metrics = ranking_metrics(np.array([[True, True, False, False]]), np.array([2]), [2, 4])
        at_2 = {name: values[0] for name, values in metrics.items() if name.endswith("@2")}
        assert at_2 == dict.fromkeys(at_2, 1.0)
        at_4 = {name: values[0] for name, values in metrics.items() if name.endswith("@4")}
        assert at_4 == {**dict.fromkeys(at_4, 1.0), "precision@4": 0.5}

    @given(st.lists(st.tuples(st.lists(st.booleans(), min_size=5, max_size=5), st.integers(0, 9)), max_size=8))
    def test_equals_the_definitions_written_out(self, queries: list[tuple[list[bool], int]]) -> None:
        hits = np.array([each for each, _ in queries], bool).reshape(-1, 5)
        n_relevant = np.array([max(sum(each) + more, 1) for each, more in queries], int)
        metrics = ranking_metrics(hits, n_relevant, range(1, 6))
        assert len(metrics) == 30
        for name, values in metrics.items():
            expected = [_metric(name, row, n) for row, n in zip(hits, n_relevant.tolist(), strict=True)]
            np.testing.assert_allclose(values, expected, rtol=1e-12, atol=0)

    def test_queries_that_cannot_be_measured_are_refused(self) -> None:
        hits = np.array([[True, False], [True, True]])
        with pytest.raises(ValueError, match="query row 1 has 0 relevant items and 2 hits"):
            ranking_metrics(hits, np.array([1, 0]), [1])
        with pytest.raises(ValueError, match="query row 1 has 1 relevant items and 2 hits"):
            ranking_metrics(hits, np.array([1, 1]), [1])
        with pytest.raises(ValueError, match=r"n_relevant must be \(2,\), got \(1,\)"):
            ranking_metrics(hits, np.array([1]), [1])
        for k in (0, 3):
            with pytest.raises(ValueError, match=f"k must be 1 to 2, the width of the lists, got {k}"):
                ranking_metrics(hits, np.array([2, 2]), [k])


def _metric(name: str, hits: NDArray[np.bool_], n_relevant: int) -> float:
    """RecBole's definitions for one query, rank by rank."""
    kind, k = name.split("@")[0], int(name.split("@")[1])
    ranks = [rank for rank in range(1, k + 1) if hits[rank - 1]]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(n_relevant, k) + 1))
    return {
        "recall": len(ranks) / n_relevant,
        "precision": len(ranks) / k,
        "hit_rate": float(len(ranks) > 0),
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "map": sum((place + 1) / rank for place, rank in enumerate(ranks)) / min(n_relevant, k),
    }[kind]
