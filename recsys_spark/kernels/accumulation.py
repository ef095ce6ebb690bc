"""One query against one tile of candidates: approximate squared distances, and which rows are near enough.

A query that touches many of the tile's rows accumulates and scans them all; one that touches few visits
these, and walks the others by ascending norm for as long as they are near enough.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.postings import SCAN_CHUNK, RowArrays, Tile


class Scratch(NamedTuple):
    """Work space of a tile: running squared distances; by row the last query that touched it; lists of rows."""

    squared: NDArray[np.float64]
    touched_by: NDArray[np.int64]
    touched: NDArray[np.uint16]
    near: NDArray[np.uint16]


def tile_scratch(tile: Tile) -> Scratch:
    """Give work space for a tile."""
    size = tile.by_norm.size
    return Scratch(
        np.empty(tile.squared_norms.size),
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
def accumulate(queries: RowArrays, query: int, tile: Tile, squared: NDArray[np.float64]) -> None:
    """Fill `squared` with the approximate squared distances of all rows of the tile; padding stays inf."""
    query_norm, norms = queries.squared_norms[query], tile.squared_norms
    indices, values = queries.indices, queries.values
    starts, local_rows, tile_values = tile.starts, tile.local_rows, tile.values
    for local in range(squared.size):
        squared[local] = query_norm + norms[local]
    for entry in range(queries.indptr[query], queries.indptr[query + 1]):
        factor = 2.0 * values[entry]
        for posting in range(starts[indices[entry]], starts[indices[entry] + 1]):
            squared[local_rows[posting]] -= factor * tile_values[posting]


@compiled
def scan(squared: NDArray[np.float64], limit: float, near: NDArray[np.uint16]) -> int:
    """List in `near` the rows within the limit, ascending; give their number."""
    n_near = 0
    for start in range(0, squared.size, SCAN_CHUNK):
        chunk = squared[start : start + SCAN_CHUNK]
        if _any_within(chunk, limit):
            for place in range(chunk.size):
                if chunk[place] <= limit:
                    near[n_near] = start + place
                    n_near += 1
    return n_near


@compiled
def _any_within(chunk: NDArray[np.float64], limit: float) -> bool:
    # In this form, over a slice and without a branch, it becomes vector instructions: 7 times faster.
    is_within = False
    for place in range(chunk.size):
        is_within |= chunk[place] <= limit
    return is_within


@compiled
def accumulate_touched(queries: RowArrays, query: int, tile: Tile, scratch: Scratch) -> int:
    """List the rows that share a column with the query, with their approximate squared distances; give their number."""
    query_norm, norms = queries.squared_norms[query], tile.squared_norms
    indices, values = queries.indices, queries.values
    starts, local_rows, tile_values = tile.starts, tile.local_rows, tile.values
    squared, touched_by, touched = scratch.squared, scratch.touched_by, scratch.touched
    n_touched = 0
    for entry in range(queries.indptr[query], queries.indptr[query + 1]):
        factor = 2.0 * values[entry]
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
