"""Exact Euclidean nearest rows of sparse rows, a tile of candidates at a time.

|u - v|^2 = |u|^2 + |v|^2 - 2 u.v is accumulated in float64 from the tile's postings for all candidates at
once, and shortlists keep every candidate that its rounding error leaves in question. What is reported is
`squared_distance` of the stored values, so no result depends on tiles, shards or blocks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.accumulation import (
    Scratch,
    accumulate,
    accumulate_touched,
    count_touches,
    pick_near,
    scan,
    tile_scratch,
    walk_untouched,
)
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.postings import MAX_TILE_ROWS, RowArrays, Tile, build_tile, row_arrays
from recsys_spark.kernels.shortlists import (
    Shortlists,
    admit,
    drop_hopeless,
    nearest_verified,
    open_shortlists,
    queries_a_pass,
    tile_limit,
)
from recsys_spark.kernels.topk import TopK, empty_top_k, require_k, sort_heap

TILE_ROWS = 4096  # their running sums, float64, stay in the first-level cache
SCAN_SHARE = 0.15  # a query that touches fewer of a tile's rows visits these instead of scanning all

UNIT_ROUNDOFF = 2.0**-53


def nearest_rows(
    queries: CsrRows,
    query_ids: NDArray[Any],
    candidates: CsrRows,
    first_candidate_id: int,
    k: int,
    tile_rows: int = TILE_ROWS,
    scan_share: float = SCAN_SHARE,
) -> TopK:
    """Find each query's k nearest candidates by Euclidean distance, ties by the smaller id.

    `query_ids`, (q,), are the queries' ids; candidate row r has id `first_candidate_id + r`. A query is not
    its own neighbor, though a duplicate of it is. Distances are float64; `squared_distance` defines them.
    Fewer than k candidates are padded with -1 and inf. `tile_rows` and `scan_share` change the speed only.
    Raises ValueError for k < 1, shapes that do not match, a `tile_rows` outside 1 to 65,536, or a row with
    columns that are not ascending within range or a value that is not finite.
    """
    require_k(k)
    _require_matching(queries, query_ids, candidates, tile_rows)
    query_rows, candidate_rows = row_arrays(queries, "query"), row_arrays(candidates, "candidate")
    own_rows = kernel_input(query_ids.astype(np.int64) - first_candidate_id, np.int64)
    slacks = _slacks(query_rows, candidate_rows)
    kept = min(k, max(candidates.n_rows, 1))
    nearest = empty_top_k(queries.n_rows, k, np.inf, np.float64)
    step = queries_a_pass(kept, candidates.n_rows)
    for start in range(0, queries.n_rows, step):
        rows, stop = _sliced(query_rows, start, start + step), start + step
        lists = open_shortlists(slacks[start:stop], kept, candidates.n_rows)
        for first_row in range(0, candidates.n_rows, tile_rows):
            tile = build_tile(candidate_rows, candidates.n_columns, first_row, first_row + tile_rows)
            scratch = tile_scratch(tile)
            _search_tile(rows, own_rows[start:stop], candidate_rows, tile, scratch, lists, kept, scan_share)
        found = nearest.indices[start:stop], nearest.scores[start:stop]
        _report(rows, candidate_rows, lists, first_candidate_id, kept, *found)
    return nearest


def _sliced(rows: RowArrays, start: int, stop: int) -> RowArrays:
    return RowArrays(rows.indptr[start : stop + 1], rows.indices, rows.values, rows.squared_norms[start:stop])


def _require_matching(queries: CsrRows, query_ids: NDArray[Any], candidates: CsrRows, tile_rows: int) -> None:
    if query_ids.shape != (queries.n_rows,):
        raise ValueError(f"query_ids must be ({queries.n_rows},), got {query_ids.shape}")
    if queries.n_columns != candidates.n_columns:
        raise ValueError(f"queries have {queries.n_columns} columns, candidates {candidates.n_columns}")
    if not 1 <= tile_rows <= MAX_TILE_ROWS:
        raise ValueError(f"tile_rows must be 1 to {MAX_TILE_ROWS}, got {tile_rows}")


def _slacks(queries: RowArrays, candidates: RowArrays) -> NDArray[np.float64]:
    """Bound how far an approximate squared distance can stray past the k-th and still be within the k nearest.

    With n stored entries in the two rows and (|u| + |v|)^2 = m, both the accumulated and the defined sum are
    off by at most 3 n u m, u = 2^-53 (Higham 2002, section 3.1), once for the k-th and once for the
    candidate; 32 u m cover the sums of norms, the limit itself and squares whose roots round to one distance.
    """
    if _is_exact(queries, candidates):
        return np.zeros(queries.squared_norms.size)
    norms = np.sqrt(queries.squared_norms) + np.sqrt(candidates.squared_norms.max(initial=0.0))
    lengths = np.diff(queries.indptr) + np.diff(candidates.indptr).max(initial=0)
    slacks: NDArray[np.float64] = UNIT_ROUNDOFF * (6.0 * lengths + 32.0) * norms * norms
    return slacks


def _is_exact(queries: RowArrays, candidates: RowArrays) -> bool:
    """Whether all values are multiples of one power of two, and so few that float64 sums have no error.

    Ones, counts and half stars are; squared distances are then multiples of its square below 2^50 of it,
    which also keeps their square roots apart.
    """
    largest = max(queries.squared_norms.max(initial=0.0), candidates.squared_norms.max(initial=0.0))
    if largest == 0.0:
        return True
    quantum = 2.0 ** (np.ceil(np.log2(4.0 * largest) / 2.0) - 25.0)
    return bool(_are_multiples(queries.values, quantum) and _are_multiples(candidates.values, quantum))


@compiled
def _are_multiples(values: NDArray[np.float32], quantum: float) -> bool:
    for entry in range(values.size):
        quotient = np.float64(values[entry]) / quantum
        if quotient != np.floor(quotient):
            return False
    return True


@compiled
def _search_tile(
    queries: RowArrays,
    own_rows: NDArray[np.int64],
    candidates: RowArrays,
    tile: Tile,
    scratch: Scratch,
    lists: Shortlists,
    k: int,
    scan_share: float,
) -> None:
    squared, near, first_row = scratch.squared, scratch.near, tile.first_row
    for query in range(own_rows.size):
        own_row = own_rows[query] - first_row
        is_exact = lists.slacks[query] == 0.0
        if count_touches(queries, query, tile) < scan_share * near.size:
            n_touched = accumulate_touched(queries, query, tile, scratch)
            limit = tile_limit(lists, query, first_row)
            n_near = pick_near(scratch.touched[:n_touched], squared, own_row, limit, near)
            admit(lists, query, k, queries, candidates, first_row, near[:n_near], squared, is_exact)
            limit = tile_limit(lists, query, first_row)
            n_near = walk_untouched(queries, query, own_row, tile, scratch, limit, k)
            admit(lists, query, k, queries, candidates, first_row, near[:n_near], squared, True)
        else:
            accumulate(queries, query, tile, squared)
            if 0 <= own_row < near.size:
                squared[own_row] = np.inf
            n_near = scan(squared, tile_limit(lists, query, first_row), near)
            admit(lists, query, k, queries, candidates, first_row, near[:n_near], squared, is_exact)


@compiled
def _report(
    queries: RowArrays,
    candidates: RowArrays,
    lists: Shortlists,
    first_candidate_id: int,
    k: int,
    indices: NDArray[np.int64],
    distances: NDArray[np.float64],
) -> None:
    for query in range(lists.counts.size):
        drop_hopeless(lists, query, k, queries, candidates)
        scores, rows = np.empty(k), np.empty(k, np.int64)
        size = nearest_verified(lists, query, queries, candidates, scores, rows)
        sort_heap(scores, rows, size)
        for place in range(size):
            indices[query, place] = first_candidate_id + rows[place]
            distances[query, place] = -scores[place]
