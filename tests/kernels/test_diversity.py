import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.diversity import diversify
from recsys_spark.kernels.topk import TopK
from tests.kernels.cases import lists_of, picked_greedily

# Products of these are exact in any order, so that ties are ties for both.
DIRECTIONS = [(0, 0, 0, 0), (1, 0, 0, 0), (0, -1, 0, 0), (0.5,) * 4, (0.5, 0.5, -0.5, -0.5), (-1, 0, 0, 0)]
SCORES = [-1e30, -2.0, 0.0, 0.1, 0.25, 0.75, 1.0, 3e38]
N_ITEMS, N_CANDIDATES = 12, 7
ANY = settings(max_examples=150, deadline=None)


def ranked(lists: list[dict[int, float]], width: int) -> TopK:
    """Candidates of each query by score, ties by the smaller item, padded."""
    indices, scores = np.full((len(lists), width), -1, np.int64), np.full((len(lists), width), -np.inf, np.float32)
    for row, scored in enumerate(lists):
        for place, item in enumerate(sorted(scored, key=lambda item: (-scored[item], item))):
            indices[row, place], scores[row, place] = item, scored[item]
    return TopK(indices, scores)


@st.composite
def queries(draw: st.DrawFn) -> TopK:
    one = st.dictionaries(st.integers(0, N_ITEMS - 1), st.sampled_from(SCORES), max_size=N_CANDIDATES)
    return ranked(draw(st.lists(one, max_size=4)), N_CANDIDATES)


vectors_of_items = st.lists(st.sampled_from(DIRECTIONS), min_size=N_ITEMS, max_size=N_ITEMS).map(
    lambda rows: np.array(rows, np.float32)
)
categories_of_items = st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=N_ITEMS, max_size=N_ITEMS)


def as_lists(categories: list[set[int]]) -> IndexLists:
    return lists_of([sorted(each) for each in categories])


def items_of(best: TopK) -> list[list[int]]:
    return [[int(item) for item in row if item >= 0] for row in best.indices]


@given(
    candidates=queries(),
    vectors=vectors_of_items,
    categories=st.none() | categories_of_items,
    weight=st.sampled_from([0.0, 0.125, 0.5, 0.7, 1.0]),
    k=st.integers(1, N_CANDIDATES + 2),
    most=st.integers(1, 3),
)
@ANY
def test_picks_are_those_of_plain_python(
    candidates: TopK,
    vectors: NDArray[np.float32],
    categories: list[set[int]] | None,
    weight: float,
    k: int,
    most: int,
) -> None:
    lists = None if categories is None else as_lists(categories)
    picked = diversify(candidates, k, weight, vectors, lists, most)
    assert picked.indices.shape == (len(candidates.indices), k)
    for row, items in enumerate(items_of(candidates)):
        scores = [float(score) for score in candidates.scores[row, : len(items)]]
        found = items_of(picked)[row]
        assert found == picked_greedily(items, scores, k, weight, vectors, categories, most)
        own = dict(zip(items, candidates.scores[row], strict=False))
        np.testing.assert_array_equal(picked.scores[row, : len(found)], [own[item] for item in found])
        assert (picked.indices[row, len(found) :] == -1).all()
        assert (picked.scores[row, len(found) :] == -np.inf).all()


@given(candidates=queries(), categories=categories_of_items, most=st.integers(1, 3), k=st.integers(1, N_CANDIDATES))
@ANY
def test_a_category_is_over_its_cap_only_where_nothing_else_was_left(
    candidates: TopK, categories: list[set[int]], most: int, k: int
) -> None:
    picked = diversify(candidates, k, 0.0, None, as_lists(categories), most)
    for items, found in zip(items_of(candidates), items_of(picked), strict=True):
        assert len(found) == min(k, len(items))
        assert len(set(found)) == len(found)
        assert set(found) <= set(items)
        for place, item in enumerate(found):
            before = found[:place]

            def is_allowed(item: int, before: list[int] = before) -> bool:
                return all(sum(category in categories[each] for each in before) < most for category in categories[item])

            if not is_allowed(item):
                assert not any(is_allowed(other) for other in set(items) - set(before))


@given(candidates=queries(), k=st.integers(1, N_CANDIDATES))
@ANY
def test_without_weight_and_cap_nothing_changes(candidates: TopK, k: int) -> None:
    picked = diversify(candidates, k, 0.0)
    np.testing.assert_array_equal(picked.indices, candidates.indices[:, :k])
    np.testing.assert_array_equal(picked.scores, candidates.scores[:, :k])


def test_one_list_by_hand() -> None:
    """Items 0 and 1 are alike; 2 is unlike them; nothing is known of 3."""
    vectors = np.array([(1, 0), (1, 0), (0, 1), (0, 0)], np.float32)
    candidates = ranked([{0: 4.0, 1: 3.0, 2: 2.0, 3: 1.0}], 4)
    # Second pick, weight .5, relevance 2/3, 1/3 and 0: 1 has 1/3 - 1/2, 2 has 1/6 - 0, 3 has 0 - 1/4, the mean of both.
    assert items_of(diversify(candidates, 4, 0.5, vectors)) == [[0, 2, 1, 3]]
    assert items_of(diversify(candidates, 4, 0.1, vectors)) == [[0, 1, 2, 3]]


def test_what_cannot_be_is_refused() -> None:
    candidates, vectors = ranked([{0: 1.0, 3: 0.5}], 2), np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        diversify(candidates, 0, 0.5, vectors)
    with pytest.raises(ValueError, match=r"weight must be 0 to 1, got 1\.5"):
        diversify(candidates, 1, 1.5, vectors)
    with pytest.raises(ValueError, match=r"weight 0\.5 needs vectors"):
        diversify(candidates, 1, 0.5)
    with pytest.raises(ValueError, match="max_per_category must be at least 1, got 0"):
        diversify(candidates, 1, 0, None, lists_of([[0]] * 4), 0)
    with pytest.raises(ValueError, match="candidate 3 is beyond the 3 items that have vectors"):
        diversify(candidates, 1, 0.5, vectors[:3])
    with pytest.raises(ValueError, match="candidate 3 is beyond the 2 items that have categories"):
        diversify(candidates, 1, 0, None, lists_of([[0], [1]]))
