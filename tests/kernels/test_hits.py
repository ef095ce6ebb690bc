from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.hits import mark_hits

Lists = list[list[int]]


def lists_of(rows: Lists) -> IndexLists:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return IndexLists(indptr, np.array([item for row in rows for item in row], np.int32))


def padded(rows: Lists, width: int) -> np.ndarray:
    return np.array([row + [-1] * (width - len(row)) for row in rows], np.int64).reshape(len(rows), width)


items = st.lists(st.integers(0, 9), max_size=6, unique=True)


@given(st.lists(st.tuples(items, items), max_size=8))
def test_hits_are_those_of_sets(queries: list[tuple[list[int], list[int]]]) -> None:
    given_, wanted = [one for one, _ in queries], [other for _, other in queries]
    hits = mark_hits(padded(given_, 6), lists_of(wanted))
    expected = [[item in other for item in one] + [False] * (6 - len(one)) for one, other in queries]
    assert hits.tolist() == expected


@pytest.mark.parametrize(
    ("recommended", "relevant", "message"),
    [
        ([[1, 2], [3, 3]], [[1], [2]], "recommended item 3 appears more than once for query row 1"),
        ([[1, 2], [3, 4]], [[5, 5], [2]], "relevant item 5 appears more than once for query row 0"),
    ],
)
def test_items_that_come_twice_are_named(recommended: Lists, relevant: Lists, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mark_hits(padded(recommended, 2), lists_of(relevant))


def test_what_is_next_in_memory_is_not_looked_at() -> None:
    """Items of other queries, and padding, are no hits; the inputs stay as they are."""
    recommended, relevant = padded([[4], [0, 4]], 3), lists_of([[0], [4]])
    before = recommended.copy()
    assert mark_hits(recommended, relevant).tolist() == [[False] * 3, [False, True, False]]
    assert (recommended == before).all()
    assert mark_hits(padded([[], []], 2), lists_of([[], []])).tolist() == [[False] * 2] * 2
