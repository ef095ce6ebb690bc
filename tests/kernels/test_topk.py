import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.kernels.topk import TopK, kth_largest, kth_smallest, merge_top_k, offer, sort_heap

SCORES = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0])  # few, so that ties are common


def _ranked(candidates: list[tuple[int, float]], k: int, largest: bool) -> TopK:
    """The k best of (index, score) of one query, by sorting them all."""
    sign = -1 if largest else 1
    best = sorted(candidates, key=lambda candidate: (sign * candidate[1], candidate[0]))[:k]
    missing = k - len(best)
    dtype = np.float32 if largest else np.float64
    indices = [index for index, _ in best] + [-1] * missing
    scores = [score for _, score in best] + [sign * np.inf] * missing
    return TopK(np.array([indices], np.int64), np.array([scores], dtype))


@given(st.lists(SCORES, max_size=30), st.integers(0, 30), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_the_best_of_two_halves_are_the_best_of_all(
    scores: list[float], cut: int, k: int, other_k: int, largest: bool
) -> None:
    candidates = list(enumerate(scores))
    left, right = _ranked(candidates[cut:], k, largest), _ranked(candidates[:cut], max(k, other_k), largest)
    expected = _ranked(candidates, k, largest)
    merged = merge_top_k(left, right, k, largest)
    assert merged.indices.tolist() == expected.indices.tolist()
    assert merged.scores.tolist() == expected.scores.tolist()
    assert merged.scores.dtype == expected.scores.dtype


def test_merging_pads_with_the_worst_score() -> None:
    left, right = _ranked([(4, 1.0)], 2, True), _ranked([], 2, True)
    merged = merge_top_k(left, right, 5, largest=True)
    assert merged.indices.tolist() == [[4, -1, -1, -1, -1]]
    assert merged.scores.tolist() == [[1.0, -np.inf, -np.inf, -np.inf, -np.inf]]
    assert merge_top_k(_ranked([], 1, False), _ranked([], 1, False), 2, largest=False).scores.tolist() == [
        [np.inf, np.inf]
    ]


def test_padding_loses_even_against_the_worst_score() -> None:
    padded = TopK(np.array([[-1]]), np.array([[np.inf]], np.float32))
    merged = merge_top_k(padded, _ranked([(7, -np.inf)], 1, True), 1, largest=True)
    assert merged.indices.tolist() == [[7]]


def test_merging_refuses_what_does_not_match() -> None:
    one, two = _ranked([], 1, True), TopK(np.full((2, 1), -1), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="cannot merge 1 with 2 queries"):
        merge_top_k(one, two, 1, largest=True)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        merge_top_k(one, one, 0, largest=True)
    with pytest.raises(ValueError, match=r"indices \(1, 1\) and scores \(1, 2\)"):
        TopK(np.zeros((1, 1), np.int64), np.zeros((1, 2)))


def _through_heap(candidates: list[tuple[int, float]], k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores, indices, size = np.empty(k), np.empty(k, np.int64), 0
    for index, score in candidates:
        size = offer(scores, indices, size, score, np.int64(index))
    sort_heap(scores, indices, size)
    return scores[:size], indices[:size]


@given(st.lists(SCORES, max_size=40), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_heap_keeps_the_best_in_whatever_order_they_come(scores: list[float], k: int, random: object) -> None:
    candidates = list(enumerate(scores))
    random.shuffle(candidates)  # type: ignore[attr-defined]
    expected = sorted(candidates, key=lambda candidate: (-candidate[1], candidate[0]))[:k]
    kept_scores, kept_indices = _through_heap(candidates, k)
    assert kept_indices.tolist() == [index for index, _ in expected]
    assert kept_scores.tolist() == [score for _, score in expected]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=60), st.data())
def test_kth_smallest_is_that_of_the_sorted_values(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert kth_smallest(np.array(values), k) == sorted(values)[k - 1]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=150), st.data())
def test_kth_largest_is_that_of_the_sorted_values(values: list[float], data: st.DataObject) -> None:
    k, bits = data.draw(st.integers(1, len(values))), data.draw(st.integers(0, 20))
    padded = np.full(-(-len(values) // 64) * 64, -np.inf, np.float32)
    padded[: len(values)] = values
    exact = np.float32(sorted(values)[-k])
    assert kth_largest(padded, k) == exact
    near = np.float32(kth_largest(padded, k, 1 << bits))
    assert near <= exact
    if np.sign(near) == np.sign(exact):
        units = np.abs([exact, near]).view(np.int32).astype(np.int64)
        assert abs(units[0] - units[1]) <= 1 << bits
