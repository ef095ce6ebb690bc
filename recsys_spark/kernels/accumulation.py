"""One query against one tile of candidates: approximate squared distances, and which rows are near enough.

A query that touches many of the tile's rows accumulates and scans them all; one that touches few visits
these, and walks the others by ascending norm for as long as they are near enough.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import Real, compiled
from recsys_spark.kernels.postings import RowArrays, Tile
from recsys_spark.kernels.simd import LINE_FLOATS, MASK_BITS, above, aligned, keep_larger, lowest_bit
from recsys_spark.kernels.topk import kth_largest

GROUPS = 256
QUERIES_AT_ONCE = 64  # so that a part of the head is used that often while it is in the cache


class Scratch(NamedTuple):
    """Work space of a tile.

    Scores of all rows, u.v - |v|^2 / 2, for a few queries, (queries, rows and more); approximate squared distances; by
    row the last query that touched it; lists of rows.
    """

    scores: NDArray[np.float32]
    squared: NDArray[np.float64]
    touched_by: NDArray[np.int64]
    touched: NDArray[np.uint16]
    near: NDArray[np.uint16]


def tile_scratch(tile: Tile) -> Scratch:
    """Give work space for a tile."""
    size = tile.by_norm.size
    return Scratch(
        # A line more, or rows would lie a power of two apart and crowd each other out of the cache.
        aligned((QUERIES_AT_ONCE, tile.first_scores.size + LINE_FLOATS)),
        np.empty(size),
        np.full(size, -1, np.int64),
        np.empty(size, np.uint16),
        np.empty(size, np.uint16),
    )


@compiled
def count_touches(queries: RowArrays, query: int, tile: Tile) -> int:
    """Count the postings of a query's columns."""
    starts, indices, n_touches = tile.starts, queries.indices, 0
    for entry in range(queries.indptr[query], queries.indptr[query + 1]):
        n_touches += starts[indices[entry] + 1] - starts[indices[entry]]
    return n_touches


@compiled
def bound_of_kth(tile: Tile, query_norm: float, scores: NDArray[np.float32], k: int) -> float:
    """Give a value that at least k of the squared distances do not pass; inf when that takes too long.

    The k-th largest of the maxima of groups tells it. It keeps most of the first tile out of the shortlist.
    """
    if k > GROUPS // 2 or scores.size < 4 * GROUPS:
        return np.inf
    largest = np.full(GROUPS, np.float32(-np.inf))
    for start in range(0, scores.size - GROUPS + 1, GROUPS):
        for part in range(0, GROUPS, MASK_BITS):
            keep_larger(largest, part, scores, start + part)
    return squared_of(kth_largest(largest, k), query_norm, tile.scale)


@compiled
def squared_of(score: Real, query_norm: float, scale: float) -> float:
    """The approximate squared distance that a score stands for, given the squared norm of the query."""
    return query_norm - np.float64(score) * (2.0 / (scale * scale))


@compiled
def scan(scratch: Scratch, scores: NDArray[np.float32], tile: Tile, query_norm: float, limit: float) -> int:
    """List in `near` the rows within the limit, ascending; give their number.

    Their approximate squared distances are in `squared`.
    """
    squared, near = scratch.squared, scratch.near
    scale_squared = tile.scale * tile.scale
    least = np.nextafter(np.float32((query_norm - limit) * scale_squared / 2.0), np.float32(-np.inf))
    n_near = 0
    for start in range(0, scores.size, MASK_BITS):
        bits = above(scores, start, least)
        while bits != 0:
            local = start + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            squared[local] = squared_of(scores[local], query_norm, tile.scale)
            if squared[local] <= limit:
                near[n_near] = local
                n_near += 1
    return n_near


@compiled
def accumulate_touched(queries: RowArrays, query: int, tile: Tile, scratch: Scratch) -> int:
    """List the rows that share a column with the query, with their approximate squared distances; give their number."""
    query_norm, norms = queries.squared_norms[query], tile.squared_norms
    indices, values = queries.indices, queries.values
    starts, local_rows, tile_values = tile.starts, tile.local_rows, tile.values
    squared, touched_by, touched = scratch.squared, scratch.touched_by, scratch.touched
    n_touched = 0
    for entry in range(queries.indptr[query], queries.indptr[query + 1]):
        factor = 2.0 * values[entry] / tile.scale
        for posting in range(starts[indices[entry]], starts[indices[entry] + 1]):
            local = local_rows[posting]
            if touched_by[local] != query:
                touched_by[local] = query
                touched[n_touched] = local
                n_touched += 1
                squared[local] = query_norm + norms[local]
            squared[local] -= factor * tile_values[posting]
    return n_touched


@compiled
def pick_near(
    touched: NDArray[np.uint16],
    squared: NDArray[np.float64],
    own_row: int,
    limit: float,
    near: NDArray[np.uint16],
) -> int:
    """List in `near` the touched rows within the limit, except the query itself; give their number."""
    n_near = 0
    for local in touched:
        if squared[local] <= limit and local != own_row:
            near[n_near] = local
            n_near += 1
    return n_near


@compiled
def walk_untouched(
    queries: RowArrays, query: int, own_row: int, tile: Tile, scratch: Scratch, limit: float, k: int
) -> int:
    """List in `near` the k nearest rows without a common column, and their ties; give their number.

    For them |u|^2 + |v|^2 is the squared distance as defined, whatever the values.
    """
    query_norm, norms = queries.squared_norms[query], tile.squared_norms
    squared, touched_by, near = scratch.squared, scratch.touched_by, scratch.near
    n_near, kth_distance = 0, np.inf
    for local in tile.by_norm:
        distance_squared = query_norm + norms[local]
        if distance_squared > limit or np.sqrt(distance_squared) > kth_distance:
            break
        if local != own_row and touched_by[local] != query:
            squared[local] = distance_squared
            near[n_near] = local
            n_near += 1
            if n_near == k:
                kth_distance = np.sqrt(distance_squared)
    return n_near
