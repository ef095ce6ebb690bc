"""The distance of two rows, as it is defined here: what all shortcuts of the search must come out at."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.postings import RowArrays
from recsys_spark.kernels.simd import dot, prefetch

NO_PLACE = 0
AHEAD = 4  # candidate rows asked for before they are read


class Pairs(NamedTuple):
    """Queries and candidates, and which query is laid out, 4 bytes a column.

    The values of the query laid out are those of `laid_out` from place 1 on; `places`, (columns,), holds the place of
    each column, NO_PLACE for none. `met`, by place, is the number of the candidate that last had its column. `last` are
    that number, the query, and how many values it has. The others are room, as long as the longest row, for what only
    one of two rows stores, and for the gaps where both do.
    """

    queries: RowArrays
    candidates: RowArrays
    places: NDArray[np.uint32]
    laid_out: NDArray[np.float32]
    met: NDArray[np.int64]
    last: NDArray[np.int64]
    only_query: NDArray[np.float32]
    only_candidate: NDArray[np.float32]
    gaps: NDArray[np.float64]


def open_pairs(queries: RowArrays, candidates: RowArrays, n_columns: int) -> Pairs:
    """Give pairs with no query laid out."""
    longest, longest_candidate = (int(np.diff(rows.indptr).max(initial=0)) + 1 for rows in (queries, candidates))
    return Pairs(
        queries,
        candidates,
        np.full(n_columns, NO_PLACE, np.uint32),
        np.zeros(longest, np.float32),
        np.zeros(longest, np.int64),
        np.array([0, -1, 0]),
        np.empty(longest, np.float32),
        np.empty(longest_candidate, np.float32),
        np.empty(longest_candidate),
    )


@compiled
def measure(
    pairs: Pairs, query: int, rows: NDArray[np.int32], is_known: NDArray[np.bool_], squared: NDArray[np.float64]
) -> None:
    """Fill in the squared Euclidean distances of a query and some candidates that are not known yet, as defined here.

    Each is the sum of three float64 sums by ascending column: squares stored only by one row, squares stored only
    by the other, both in the order of `simd.dot`, and in turn the squared differences of the columns both store; the
    first two are added first. So it is symmetric, depends on the two rows alone, equals |u|^2 + |v|^2 to the bit
    without a common column, and does not depend on how the columns of the two rows interleave: rows of ones that
    were brought to unit length tie exactly when they have as many columns and share as many.
    """
    if pairs.last[1] != query:
        _lay_out(pairs, query)
    places, met, number = pairs.places, pairs.met, pairs.last[0]
    only_query, only_candidate, gaps = pairs.only_query, pairs.only_candidate, pairs.gaps
    indptr, indices, values = pairs.candidates.indptr, pairs.candidates.indices, pairs.candidates.values
    own_values, n_own = pairs.laid_out, pairs.last[2]
    for slot in range(min(rows.size, AHEAD)):
        _prefetch_row(pairs.candidates, rows[slot])
    for slot in range(rows.size):
        if slot + AHEAD < rows.size:
            _prefetch_row(pairs.candidates, rows[slot + AHEAD])
        if is_known[slot]:
            continue
        number += 1
        # No branches on what a row stores: they could not be predicted.
        n_candidate, n_common, n_query = 0, 0, 0
        for entry in range(indptr[rows[slot]], indptr[rows[slot] + 1]):
            place, value = places[indices[entry]], values[entry]
            only_candidate[n_candidate] = value
            n_candidate += place == NO_PLACE
            gaps[n_common] = np.float64(own_values[place]) - np.float64(value)
            n_common += place != NO_PLACE
            met[place] = number
        for place in range(1, n_own + 1):
            only_query[n_query] = own_values[place]
            n_query += met[place] != number
        common = 0.0
        for place in range(n_common):
            common += gaps[place] * gaps[place]
        squares = dot(only_query[:n_query], only_query[:n_query])
        squares += dot(only_candidate[:n_candidate], only_candidate[:n_candidate])
        squared[slot] = squares + common
        is_known[slot] = True
    pairs.last[0] = number


@compiled
def _prefetch_row(rows: RowArrays, row: int) -> None:
    start, stop = rows.indptr[row], rows.indptr[row + 1]
    prefetch(rows.indices[start:stop])
    prefetch(rows.values[start:stop])


@compiled
def _lay_out(pairs: Pairs, query: int) -> None:
    indptr, indices, values, earlier = pairs.queries.indptr, pairs.queries.indices, pairs.queries.values, pairs.last[1]
    if earlier >= 0:
        for entry in range(indptr[earlier], indptr[earlier + 1]):
            pairs.places[indices[entry]] = NO_PLACE
    place = 0
    for entry in range(indptr[query], indptr[query + 1]):
        place += 1
        pairs.places[indices[entry]] = place
        pairs.laid_out[place] = values[entry]
    pairs.last[1], pairs.last[2] = query, place
