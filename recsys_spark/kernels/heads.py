"""The two ways of a query through a tile: whole columns for the popular ones, in vector instructions, else postings."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.postings import Head, RowArrays, Tile
from recsys_spark.kernels.simd import WIDTH, add_multiples


class Entries(NamedTuple):
    """Some of the queries' entries: row q has `numbers[indptr[q]:indptr[q + 1]]`, with `factors`, scaled."""

    indptr: NDArray[np.int64]
    numbers: NDArray[np.int32]
    factors: NDArray[np.float32]


class Parted(NamedTuple):
    """The queries' entries, scaled: those in the head, by place there, and the others, by column."""

    in_head: Entries
    others: Entries


def part_queries(queries: RowArrays, head: Head, scale: float) -> Parted:
    """Part the queries' entries, 8 bytes each."""
    first, last = queries.indptr[0], queries.indptr[-1]
    places = head.places[queries.indices[first:last]]
    is_in_head, factors = places >= 0, (queries.values[first:last] * np.float64(scale)).astype(np.float32)
    before = np.concatenate([[0], np.cumsum(is_in_head)])[queries.indptr - first]
    others = Entries(queries.indptr - first - before, queries.indices[first:last][~is_in_head], factors[~is_in_head])
    return Parted(Entries(before, places[is_in_head], factors[is_in_head]), others)


@compiled
def start_scores(parted: Parted, first: int, n_queries: int, tile: Tile, scores: NDArray[np.float32]) -> None:
    """Fill `scores`, (queries or more, rows or more), with u.v - |v|^2 / 2 over the head, for queries from `first` on.

    All is scaled; padding gets -inf.
    """
    indptr, numbers, factors = parted.in_head
    columns, n_head = tile.whole_columns.ravel(), tile.whole_columns.shape[1]
    sums, n_scores = scores.ravel(), scores.shape[1]
    for row in range(0, tile.first_scores.size, WIDTH):
        base = row * n_head
        for query in range(n_queries):
            place, start, stop = query * n_scores + row, indptr[first + query], indptr[first + query + 1]
            add_multiples(sums, place, tile.first_scores, row, columns, base, numbers, factors, start, stop)


@compiled
def add_others(parted: Parted, query: int, tile: Tile, scores: NDArray[np.float32]) -> None:
    """Add to the `scores` of the tile's rows, scaled, what the query's columns outside the head give."""
    indptr, columns, factors = parted.others
    starts, local_rows, values = tile.starts, tile.local_rows, tile.values
    for entry in range(indptr[query], indptr[query + 1]):
        factor = factors[entry]
        for posting in range(starts[columns[entry]], starts[columns[entry] + 1]):
            scores[local_rows[posting]] += factor * values[posting]
