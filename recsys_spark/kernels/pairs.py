"""The distance of two rows, as it is defined here: what all shortcuts of the search must come out at."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.postings import RowArrays


class Pairs(NamedTuple):
    """Queries and candidates, and which query is laid out, 4 bytes a column.

    `places`, (columns,), holds the place of each column among the entries of the query laid out, -1 for none; `met`,
    as long as the longest query, the number of the candidate that last had the column of a place. `last` are that
    number and the query.
    """

    queries: RowArrays
    candidates: RowArrays
    places: NDArray[np.int32]
    met: NDArray[np.int64]
    last: NDArray[np.int64]


def open_pairs(queries: RowArrays, candidates: RowArrays, n_columns: int) -> Pairs:
    """Give pairs with no query laid out."""
    longest = int(np.diff(queries.indptr).max(initial=0))
    return Pairs(queries, candidates, np.full(n_columns, -1, np.int32), np.zeros(longest, np.int64), np.array([0, -1]))


@compiled
def measure(
    pairs: Pairs, query: int, rows: NDArray[np.int32], is_known: NDArray[np.bool_], squared: NDArray[np.float64]
) -> None:
    """Fill in the squared Euclidean distances of a query and some candidates that are not known yet, as defined here.

    Each is the sum of three float64 sums by ascending column: squares stored only by one row, squares stored only
    by the other, squared differences of the columns both store; the first two are added first. So it is
    symmetric, depends on the two rows alone, equals |u|^2 + |v|^2 to the bit without a common column, and
    does not depend on how the columns of the two rows interleave: rows of ones that were brought to unit
    length tie exactly when they have as many columns and share as many.
    """
    if pairs.last[1] != query:
        _lay_out(pairs, query)
    places, met, number = pairs.places, pairs.met, pairs.last[0]
    indptr, indices, values = pairs.candidates.indptr, pairs.candidates.indices, pairs.candidates.values
    own_values = pairs.queries.values[pairs.queries.indptr[query] : pairs.queries.indptr[query + 1]]
    for slot in range(rows.size):
        if is_known[slot]:
            continue
        number += 1
        only_query, only_candidate, common = 0.0, 0.0, 0.0
        for entry in range(indptr[rows[slot]], indptr[rows[slot] + 1]):
            place, value = places[indices[entry]], np.float64(values[entry])
            if place >= 0:
                gap = np.float64(own_values[place]) - value
                common += gap * gap
                met[place] = number
            else:
                only_candidate += value * value
        for place in range(own_values.size):
            value = np.float64(own_values[place])
            only_query += 0.0 if met[place] == number else value * value  # no branch: it could not be predicted
        squared[slot] = (only_query + only_candidate) + common
        is_known[slot] = True
    pairs.last[0] = number


@compiled
def _lay_out(pairs: Pairs, query: int) -> None:
    queries, earlier = pairs.queries, pairs.last[1]
    if earlier >= 0:
        for entry in range(queries.indptr[earlier], queries.indptr[earlier + 1]):
            pairs.places[queries.indices[entry]] = -1
    first = queries.indptr[query]
    for entry in range(first, queries.indptr[query + 1]):
        pairs.places[queries.indices[entry]] = entry - first
    pairs.last[1] = query
