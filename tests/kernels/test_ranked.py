from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.ranked import put_first
from recsys_spark.kernels.topk import TopK
from tests.kernels.cases import best_of, lists_of, nothing

N_ITEMS = 9
SETS = st.sets(st.integers(0, N_ITEMS - 1))


@st.composite
def ranked_lists(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[list[int]]]:
    """Some ranked lists, the list of each query, -1 for none, and what each query excludes."""
    lists = [draw(st.permutations(sorted(draw(SETS)))) for _ in range(draw(st.integers(1, 3)))]
    chosen = draw(st.lists(st.integers(-1, len(lists) - 1), max_size=5))
    return lists, chosen, [sorted(draw(SETS)) for _ in chosen]


@given(case=ranked_lists(), k=st.integers(1, N_ITEMS + 2), popularity=st.permutations(range(N_ITEMS)))
@settings(max_examples=200, deadline=None)
def test_lists_are_those_of_a_full_ranking(
    case: tuple[list[list[int]], list[int], list[list[int]]], k: int, popularity: list[int]
) -> None:
    """Items of the list score above 0, by their place in it, all others below, by popularity."""
    lists, chosen, excluded = case
    below = np.array(popularity, np.float32) - np.float32(N_ITEMS)
    full = np.tile(below, (len(chosen), 1))
    for query, banned in enumerate(excluded):
        full[query, banned] = -np.inf
    rest = TopK(*best_of(full, k))
    for query, ranked in enumerate(chosen):
        for place, item in enumerate(lists[ranked] if ranked >= 0 else []):
            if item not in excluded[query]:
                full[query, item] = N_ITEMS - place
    scores = np.array([N_ITEMS - place for each in lists for place in range(len(each))], np.float32)
    found = put_first(lists_of(lists), scores, np.array(chosen, np.int32), lists_of(excluded), rest)
    indices, values = best_of(full, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.scores, values)


def test_what_does_not_match_is_refused() -> None:
    ranked, scores = lists_of([[3, 1]]), np.array([2, 1], np.float32)
    rest = TopK(np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32))

    def put(
        chosen: tuple[int, ...],
        scores: np.ndarray = scores,
        excluded: IndexLists = nothing(2),  # noqa: B008
    ) -> TopK:
        return put_first(ranked, scores, np.array(chosen, np.int32), excluded, rest)

    assert put((0, -1)).indices.tolist() == [[3], [0]]
    with pytest.raises(ValueError, match="lists 0 to 1 are chosen of 1"):
        put((0, 1))
    with pytest.raises(ValueError, match="2 queries, but 1 chosen lists and 2 of excluded items"):
        put((0,))
    with pytest.raises(ValueError, match="2 queries, but 2 chosen lists and 3 of excluded items"):
        put((0, 0), excluded=nothing(3))
    with pytest.raises(ValueError, match=r"2 ranked items, but scores \(1,\)"):
        put((0, 0), scores=scores[:1])
