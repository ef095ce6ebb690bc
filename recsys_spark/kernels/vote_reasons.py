"""Why an item is in a list that neighbors make: how many of them have it, and whose votes are the largest."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.jit import Real, Whole, compiled, kernel_input
from recsys_spark.kernels.neighbor_scoring import Ragged
from recsys_spark.kernels.reasons import Floats, Terms, no_terms, ragged, require_lists


class _Listed(NamedTuple):
    """What is known of a list: a bit an item, 0 between lists, its place in the list, and votes and weights by place.

    Most entries of neighbors need look at their bit alone.
    """

    bits: NDArray[np.uint8]
    places: NDArray[np.int32]
    votes: NDArray[np.float64]
    weights: NDArray[np.float64]


def largest_votes(
    neighbor_rows: CsrRows,
    neighbors: IndexLists,
    similarities: Floats,
    listed: NDArray[Any],
    most: int,
    shrinkage: float | None = None,
) -> Terms:
    """The largest votes of each query's neighbors for its listed items: columns are neighbors, counts who has an item.

    The terms s_v r_vi of `score_from_neighbors`: by "sum" without `shrinkage`, else by "mean", divided as it divides.
    `listed`, (queries, k), holds columns of `neighbor_rows`, -1 being padding. Equal votes are in the order of the
    neighbors. Memory: the terms, and 5 bytes an item.

    Raises:
        ValueError: shapes that do not match, neighbors or listed items that are out of range.
    """
    require_lists(neighbors, neighbor_rows.n_rows, listed, neighbor_rows.n_columns)
    if similarities.shape != neighbors.indices.shape:
        raise ValueError(f"{neighbors.indices.size} neighbors but similarities {similarities.shape}")
    k, n_items = listed.shape[1], neighbor_rows.n_columns
    terms = no_terms((neighbors.n_rows, k), most)
    votes = _Listed(np.zeros(n_items // 8 + 1, np.uint8), np.empty(n_items, np.int32), np.empty(k), np.empty(k))
    voters = Ragged(
        kernel_input(neighbors.indptr, np.int64),
        kernel_input(neighbors.indices, np.int64),
        kernel_input(similarities, np.float32),
    )
    divisor = -1.0 if shrinkage is None else float(shrinkage)
    _largest_votes(ragged(neighbor_rows), voters, kernel_input(listed, np.int64), divisor, votes, terms)
    return terms


@compiled
def _largest_votes(
    neighbor_rows: Ragged, neighbors: Ragged, listed: NDArray[np.int64], shrinkage: float, votes: _Listed, terms: Terms
) -> None:
    for query in range(listed.shape[0]):
        _mark(listed[query], votes)
        for entry in range(neighbors.indptr[query], neighbors.indptr[query + 1]):
            if neighbors.indices[entry] >= 0:
                _vote(neighbor_rows, neighbors.indices[entry], neighbors.values[entry], query, votes, terms)
        _count(listed[query], query, shrinkage, votes, terms)


@compiled
def _mark(listed: NDArray[np.int64], votes: _Listed) -> None:
    votes.votes[:], votes.weights[:] = 0.0, 0.0
    for place in range(listed.size):
        item = listed[place]
        if item >= 0:
            votes.bits[item >> 3] |= np.uint8(1 << (item & 7))
            votes.places[item] = place


@compiled
def _vote(rows: Ragged, neighbor: Whole, similarity: Real, query: Whole, votes: _Listed, terms: Terms) -> None:
    for entry in range(rows.indptr[neighbor], rows.indptr[neighbor + 1]):
        item = rows.indices[entry]
        if (votes.bits[item >> 3] >> (item & 7)) & 1:
            place, vote = votes.places[item], np.float64(similarity) * np.float64(rows.values[entry])
            votes.votes[place] += vote
            votes.weights[place] += np.float64(similarity)
            terms.counts[query, place] += 1
            _insert(terms.columns[query, place], terms.values[query, place], neighbor, np.float32(vote))


@compiled
def _insert(columns: NDArray[np.int32], values: Floats, column: Whole, value: Real) -> None:
    """Put a term where it belongs among the largest, if it does; equal ones keep their order."""
    place = values.size - 1
    if not value > values[place]:
        return
    while place > 0 and values[place - 1] < value:
        values[place], columns[place] = values[place - 1], columns[place - 1]
        place -= 1
    values[place], columns[place] = np.float32(value), np.int32(column)


@compiled
def _count(listed: NDArray[np.int64], query: Whole, shrinkage: float, votes: _Listed, terms: Terms) -> None:
    for place in range(listed.size):
        if listed[place] >= 0:
            votes.bits[listed[place] >> 3] = 0
            divisor = votes.weights[place] + shrinkage if shrinkage >= 0.0 else 1.0
            share = 1.0 / divisor if divisor > 0.0 else 0.0
            terms.sums[query, place] = np.float32(votes.votes[place] * share)
            for kept in range(terms.values.shape[2]):
                terms.values[query, place, kept] *= np.float32(share)
