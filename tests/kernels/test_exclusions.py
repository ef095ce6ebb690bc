from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.exclusions import hide_items

N_ROWS, N_COLUMNS = 4, 6
PAIRS = st.lists(st.tuples(st.integers(0, N_ROWS - 1), st.integers(0, N_COLUMNS - 1)), max_size=20)
FLAGS = st.lists(st.booleans(), min_size=N_ROWS, max_size=N_ROWS)


@given(gets=FLAGS, has_candidates=FLAGS, seen=PAIRS, denied=PAIRS, candidates=PAIRS)
@settings(max_examples=300, deadline=None)
def test_each_row_gets_what_sets_leave(
    gets: list[bool],
    has_candidates: list[bool],
    seen: list[tuple[int, int]],
    denied: list[tuple[int, int]],
    candidates: list[tuple[int, int]],
) -> None:
    pairs = [
        tuple(np.array([pair[side] for pair in each], np.int64) for side in (0, 1))
        for each in (seen, denied, candidates)
    ]
    lists, seen_counts, denied_counts = hide_items(np.array(gets), np.array(has_candidates), *pairs)
    for row in range(N_ROWS):
        own_seen, own_denied, own = (
            {column for at, column in each if at == row} for each in (seen, denied, candidates)
        )
        pool = own if has_candidates[row] else set(range(N_COLUMNS))
        listed = lists.indices[lists.indptr[row] : lists.indptr[row + 1]].tolist()
        assert listed == sorted(set(listed))
        shown = set(listed) if lists.are_allowed[row] else set(range(N_COLUMNS)) - set(listed)
        assert shown == (pool - own_seen - own_denied if gets[row] else set())
        assert denied_counts[row] == len(own_denied & pool)
        assert seen_counts[row] == len((own_seen - own_denied) & pool)
