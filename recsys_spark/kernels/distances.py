"""Exact Euclidean nearest rows of sparse rows, a tile of candidates at a time.

|u - v|^2 = |u|^2 + |v|^2 - 2 u.v is accumulated in float64 from the tile's postings for all candidates at
once, and shortlists keep every candidate that its rounding error leaves in question. What is reported is
`pairs.measure` of the stored values, so no result depends on tiles, shards or blocks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.accumulation import (
    QUERIES_AT_ONCE,
    Scratch,
    accumulate_touched,
    bound_of_kth,
    count_touches,
    pick_near,
    scan,
    tile_scratch,
    walk_untouched,
)
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.heads import Parted, add_others, part_queries, start_scores
from recsys_spark.kernels.jit import compiled, kernel_input
from recsys_spark.kernels.pairs import Pairs, open_pairs
from recsys_spark.kernels.postings import (
    BELOW_NORMAL_16,
    MAX_TILE_ROWS,
    Head,
    RowArrays,
    Tile,
    build_tile,
    choose_head,
    head_room,
    row_arrays,
)
from recsys_spark.kernels.shortlists import (
    NO_LIMIT,
    Shortlists,
    admit,
    drop_hopeless,
    open_shortlists,
    queries_a_pass,
    rank_verified,
    tile_limit,
)
from recsys_spark.kernels.topk import TopK, empty_top_k, require_k

TILE_ROWS = 4096  # their scores stay in the first-level cache
MOST_TILE_ROWS = 16_384  # of short rows, which touch few of them
TILE_ENTRIES = 1 << 19
SCAN_SHARE = 0.15  # a query that touches fewer of a tile's rows visits these instead of scanning all

UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64 = 2.0**-24, 2.0**-53


def nearest_rows(
    queries: CsrRows,
    query_ids: NDArray[Any],
    candidates: CsrRows,
    first_candidate_id: int,
    k: int,
    tile_rows: int | None = None,
    scan_share: float = SCAN_SHARE,
) -> TopK:
    """Find each query's k nearest candidates by Euclidean distance, ties by the smaller id.

    `query_ids`, (q,), are the queries' ids; candidate row r has id `first_candidate_id + r`. A query is not
    its own neighbor, though a duplicate of it is. Distances are float64; `pairs.measure` defines them.
    Fewer than k candidates are padded with -1 and inf. `tile_rows` and `scan_share` change the speed only.
    Raises ValueError for k < 1, shapes that do not match, a `tile_rows` outside 1 to 65,536, or a row with
    columns that are not ascending within range or a value that is not finite.
    """
    require_k(k)
    tile_rows = _suitable_tile(candidates) if tile_rows is None else tile_rows
    _require_matching(queries, query_ids, candidates, tile_rows)
    query_rows, candidate_rows = row_arrays(queries, "query"), row_arrays(candidates, "candidate")
    own_rows = kernel_input(query_ids.astype(np.int64) - first_candidate_id, np.int64)
    scale = _scale(query_rows, candidate_rows)
    kept = min(k, max(candidates.n_rows, 1))
    head = choose_head(candidate_rows, candidates.n_columns, tile_rows, scale)
    slacks = _slacks(query_rows, candidate_rows, scale, head, kept)
    nearest = empty_top_k(queries.n_rows, k, np.inf, np.float64)
    room = head_room(head, tile_rows)
    step = queries_a_pass(kept, candidates.n_rows)
    for start in range(0, queries.n_rows, step):
        rows, stop = _sliced(query_rows, start, start + step), start + step
        pairs = open_pairs(rows, candidate_rows, candidates.n_columns)
        parted = part_queries(rows, head, scale)
        lists = open_shortlists(slacks[start:stop], kept, candidates.n_rows)
        for first_row in range(0, candidates.n_rows, tile_rows):
            tile = build_tile(candidate_rows, head, first_row, first_row + tile_rows, scale, room)
            _search_tile(pairs, parted, own_rows[start:stop], tile, tile_scratch(tile), lists, kept, scan_share)
        found = nearest.indices[start:stop], nearest.scores[start:stop]
        _report(pairs, lists, first_candidate_id, kept, *found)
    return nearest


def _sliced(rows: RowArrays, start: int, stop: int) -> RowArrays:
    return RowArrays(rows.indptr[start : stop + 1], rows.indices, rows.values, rows.squared_norms[start:stop])


def _suitable_tile(candidates: CsrRows) -> int:
    fitting = TILE_ENTRIES * candidates.n_rows // max(candidates.nnz, 1)
    return min(max(fitting, TILE_ROWS), MOST_TILE_ROWS)


def _require_matching(queries: CsrRows, query_ids: NDArray[Any], candidates: CsrRows, tile_rows: int) -> None:
    if query_ids.shape != (queries.n_rows,):
        raise ValueError(f"query_ids must be ({queries.n_rows},), got {query_ids.shape}")
    if queries.n_columns != candidates.n_columns:
        raise ValueError(f"queries have {queries.n_columns} columns, candidates {candidates.n_columns}")
    if not 1 <= tile_rows <= MAX_TILE_ROWS:
        raise ValueError(f"tile_rows must be 1 to {MAX_TILE_ROWS}, got {tile_rows}")


def _scale(queries: RowArrays, candidates: RowArrays) -> float:
    """The power of two that brings the largest norm below 1, so that float32 neither overflows nor loses small rows."""
    largest = max(queries.squared_norms.max(initial=0.0), candidates.squared_norms.max(initial=0.0))
    return float(2.0 ** -np.ceil(np.log2(largest) / 2.0)) if largest > 0.0 else 1.0


def _slacks(queries: RowArrays, candidates: RowArrays, scale: float, head: Head, k: int) -> NDArray[np.float64]:
    """Bound how far an approximate squared distance can stray past the k-th and still be within the k nearest.

    With n entries in the query, a float32 score is off by at most (2 n + 3) u m, u = 2^-24, m = |u| |v| + |v|^2 / 2
    (Higham 2002, section 3.1), and by 2^-147 an operation, scaled, for what is below the normal range; with the float16
    of the head's columns, by |u| times what it takes from |v|. A squared distance is off by twice that. With n entries
    in the two rows, its float64 sums are off by 3 n u (|u| + |v|)^2, u = 2^-53; 16 more cover the limit itself and
    squares whose roots round to one distance. All of it once for the k-th and once for the candidate.
    """
    if _is_exact(queries, candidates):
        return np.zeros(queries.squared_norms.size)
    norms, query_lengths = np.sqrt(queries.squared_norms), np.diff(queries.indptr)
    largest = _largest_near(norms, query_lengths, np.sqrt(candidates.squared_norms), k)
    longest = np.diff(candidates.indptr).max(initial=0)
    lengths = query_lengths + longest
    operations = 4.0 * (2.0 * query_lengths + 3.0)
    of_scores = operations * (1.01 * UNIT_ROUNDOFF_32 * (norms * largest + largest**2 / 2.0) + 2.0**-147 / scale**2)
    of_head = 4.0 * norms * (head.error * largest + np.sqrt(longest) * BELOW_NORMAL_16 / scale) if head.size else 0.0
    slacks: NDArray[np.float64] = (
        of_scores + 1.01 * of_head + UNIT_ROUNDOFF_64 * (6.0 * lengths + 32.0) * (norms + largest) ** 2
    )
    return slacks


def _largest_near(
    norms: NDArray[np.float64], lengths: NDArray[np.int64], candidate_norms: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """The largest norm that matters to the slack of each query.

    The k-th distance is at most |u| plus the norm that k others do not pass, r in all, so a row of norm above |u| + r
    is no neighbor; nor does the approximation make it one, since its error grows more slowly with the norm than its
    squared distance does, as long as the relative error is below a half.
    """
    largest = candidate_norms.max(initial=0.0)
    if candidate_norms.size <= k:
        return np.full(norms.size, largest)
    reach = 2.0 * norms + np.partition(candidate_norms, k)[k]  # k + 1 rows, of which one may be the query
    nearer: NDArray[np.float64] = np.where(lengths < 1 << 20, np.minimum(reach, largest), largest)
    return nearer


def _is_exact(queries: RowArrays, candidates: RowArrays) -> bool:
    """Whether all values are multiples of one power of two, and so few that float32 scores have no error.

    Ones, counts and half stars are; scores are then multiples of half its square, below 2^24 of that, and squared
    distances in float64 below 2^50, which also keeps their square roots apart.
    """
    largest = max(queries.squared_norms.max(initial=0.0), candidates.squared_norms.max(initial=0.0))
    if largest == 0.0:
        return True
    quantum = 2.0 ** np.ceil(np.log2(largest) / 2.0 - 11.0)
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
    pairs: Pairs,
    parted: Parted,
    own_rows: NDArray[np.int64],
    tile: Tile,
    scratch: Scratch,
    lists: Shortlists,
    k: int,
    scan_share: float,
) -> None:
    queries, has_head, size = pairs.queries, tile.whole_columns.shape[1] > 0, tile.first_scores.size
    for first in range(0, own_rows.size, QUERIES_AT_ONCE):
        n_queries = min(QUERIES_AT_ONCE, own_rows.size - first)
        if has_head:
            start_scores(parted, first, n_queries, tile, scratch.scores)
        for query in range(first, first + n_queries):
            own_row, scores = own_rows[query] - tile.first_row, scratch.scores[query - first, :size]
            if not has_head and count_touches(queries, query, tile) < scan_share * scratch.near.size:
                _visit(pairs, query, own_row, tile, scratch, lists, k)
                continue
            if not has_head:
                start_scores(parted, query, 1, tile, scratch.scores[query - first :])
            add_others(parted, query, tile, scores)
            _scan(pairs, query, own_row, tile, scratch, scores, lists, k)


@compiled
def _visit(pairs: Pairs, query: int, own_row: int, tile: Tile, scratch: Scratch, lists: Shortlists, k: int) -> None:
    """Admit from the rows that share a column with the query, then from the others."""
    squared, near, first_row = scratch.squared, scratch.near, tile.first_row
    n_touched = accumulate_touched(pairs.queries, query, tile, scratch)
    n_near = pick_near(scratch.touched[:n_touched], squared, own_row, tile_limit(lists, query, first_row), near)
    admit(lists, query, k, pairs, first_row, near[:n_near], squared, lists.slacks[query] == 0.0)
    limit = tile_limit(lists, query, first_row)
    n_near = walk_untouched(pairs.queries, query, own_row, tile, scratch, limit, k)
    admit(lists, query, k, pairs, first_row, near[:n_near], squared, True)


@compiled
def _scan(
    pairs: Pairs,
    query: int,
    own_row: int,
    tile: Tile,
    scratch: Scratch,
    scores: NDArray[np.float32],
    lists: Shortlists,
    k: int,
) -> None:
    """Admit from all rows of the tile."""
    query_norm, slack = pairs.queries.squared_norms[query], lists.slacks[query]
    if 0 <= own_row < scratch.near.size:
        scores[own_row] = -np.inf
    if lists.limits[query] == NO_LIMIT:
        lists.limits[query] = min(NO_LIMIT, bound_of_kth(tile, query_norm, scores, k) + slack)
    n_near = scan(scratch, scores, tile, query_norm, tile_limit(lists, query, tile.first_row))
    admit(lists, query, k, pairs, tile.first_row, scratch.near[:n_near], scratch.squared, slack == 0.0)


@compiled
def _report(
    pairs: Pairs,
    lists: Shortlists,
    first_candidate_id: int,
    k: int,
    indices: NDArray[np.int64],
    distances: NDArray[np.float64],
) -> None:
    for query in range(lists.counts.size):
        drop_hopeless(lists, query, k, pairs)
        size = rank_verified(lists, query, k, pairs, indices[query], distances[query])
        for place in range(size):
            indices[query, place] += first_candidate_id
