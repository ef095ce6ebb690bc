"""Why an item is in a list: the largest terms of its score, where the score is a sum over items or users.

Terms are computed for listed items alone: of a user with h items and k listed ones they are a matrix of h x k.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import CsrRows, IndexLists, require_valid_columns
from recsys_spark.kernels.jit import Real, Whole, compiled, kernel_input
from recsys_spark.kernels.neighbor_scoring import Ragged
from recsys_spark.kernels.simd import dot, prefetch

CHUNK_ENTRIES = 256  # of a row at once
MOST_CONSIDERED = 50  # entries of a row
CHUNK_ITEMS = 1024  # of a list at once
AHEAD = 8  # vectors that are asked for before they are read: they lie anywhere

Floats = NDArray[np.float32]


class Terms(NamedTuple):
    """Of each listed item its largest terms above 0, falling, ties by the smaller column, and all of them together.

    `columns` int32 and `values` float32, (rows, k, most), are padded with -1 and 0; `sums` float32 (rows, k) are of all
    terms, `counts` int32 (rows, k) say how many there are that are not 0 by definition.
    """

    columns: NDArray[np.int32]
    values: Floats
    sums: Floats
    counts: NDArray[np.int32]


def no_terms(shape: tuple[int, int], most: int) -> Terms:
    """Terms of lists of that shape, (rows, k), none of them there."""
    columns = np.full((*shape, most), -1, np.int32)
    return Terms(columns, np.zeros(columns.shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int32))


def largest_products(
    rows: CsrRows,
    scales: Floats,
    lefts: Floats,
    rights: Floats,
    listed: NDArray[Any],
    most: int,
    considered: int = MOST_CONSIDERED,
) -> Terms:
    """The largest terms f_j sum_d scales[r, d] lefts[j, d] rights[i, d] of the items i that are listed for row r.

    The values of `rows` are the factors f_j, its columns rows of `lefts`, (n, d); `listed`, (rows, k), holds rows of
    `rights`, (m, d), -1 being padding; `scales` is (rows, d). Of longer rows only those `considered` entries are looked
    at whose terms add up to most over the list, or over 1,024 of its items; sums are of all entries. A row's bits
    depend on the row, its scales, its list and the vectors. Memory: the terms, 4 bytes an entry of the longest row,
    and 4 (considered + 1,024) (d + considered) bytes.

    Raises:
        ValueError: shapes that do not match, columns or listed items that are out of range.
    """
    require_lists(rows, len(lefts), listed, len(rights))
    if lefts.shape[1] != rights.shape[1] or scales.shape != (rows.n_rows, lefts.shape[1]):
        raise ValueError(f"vectors {lefts.shape} and {rights.shape}, and scales {scales.shape}, do not match")
    terms = no_terms((listed.shape[0], listed.shape[1]), most)
    factors, left, right = (kernel_input(array, np.float32) for array in (scales, lefts, rights))
    room, entries = _room(most, listed.shape[1]), _entries(rows, considered, lefts.shape[1])
    _largest_products(ragged(rows), factors, left, right, kernel_input(listed, np.int64), room, entries, terms)
    return terms


def largest_weights(rows: CsrRows, weights: Floats, listed: NDArray[Any], most: int) -> Terms:
    """The largest terms f_j weights[j, i] of the items i that are listed for each row.

    The values of `rows` are the factors f_j, its columns rows of `weights`, (n, m); `listed`, (rows, k), holds columns
    of it, -1 being padding. Raises ValueError as above.
    """
    require_lists(rows, len(weights), listed, weights.shape[1])
    terms = no_terms((listed.shape[0], listed.shape[1]), most)
    room, arrays = _room(most, listed.shape[1]), (kernel_input(weights, np.float32), kernel_input(listed, np.int64))
    _largest_weights(ragged(rows), *arrays, room, terms)
    return terms


def ragged(rows: CsrRows) -> Ragged:
    """Rows as kernels take them."""
    return Ragged(
        kernel_input(rows.indptr, np.int64), kernel_input(rows.indices, np.int32), kernel_input(rows.values, np.float32)
    )


def require_lists(rows: IndexLists, n_columns: int, listed: NDArray[Any], n_items: int) -> None:
    """Raise ValueError for rows with a column beyond `n_columns`, or lists (rows, k) with an item beyond."""
    if listed.ndim != 2 or len(listed) != rows.n_rows:
        raise ValueError(f"{rows.n_rows} rows but lists of shape {listed.shape}")
    if isinstance(rows, CsrRows):
        require_valid_columns(rows, "rows")
    if rows.indices.size and int(rows.indices.max()) >= n_columns:
        raise ValueError(f"rows have a column {int(rows.indices.max())}, but there are {n_columns}")
    if listed.size and int(listed.max()) >= n_items:
        raise ValueError(f"lists have item {int(listed.max())}, but there are {n_items}")


class _Room(NamedTuple):
    """Work space of a list of items: their largest terms, the columns of these, and what is kept while they rise."""

    largest: Floats
    owners: NDArray[np.int32]
    rising: NDArray[np.int32]
    added: NDArray[np.float64]


def _room(most: int, k: int) -> _Room:
    shape = most, min(CHUNK_ITEMS, k)
    return _Room(
        np.empty(shape, np.float32), np.empty(shape, np.int32), np.empty(shape[1], np.int32), np.empty(shape[1])
    )


class _Entries(NamedTuple):
    """The scaled vectors of the entries of a row that are looked at, their columns, and the sum of all of the row.

    `shares`: what each entry adds to a whole list.
    """

    vectors: Floats
    columns: NDArray[np.int32]
    total: Floats
    shares: Floats


def _entries(rows: CsrRows, considered: int, dims: int) -> _Entries:
    longest = int(np.diff(rows.indptr).max(initial=0))
    held = max(1, min(considered, longest))
    return _Entries(
        np.empty((held, dims), np.float32),
        np.empty(held, np.int32),
        np.empty(dims, np.float32),
        np.empty(longest, np.float32),
    )


@compiled
def _largest_products(
    rows: Ragged,
    scales: Floats,
    lefts: Floats,
    rights: Floats,
    listed: NDArray[np.int64],
    room: _Room,
    entries: _Entries,
    terms: Terms,
) -> None:
    (considered, dims), width = entries.vectors.shape, room.added.size
    gathered, of_entries = np.empty(dims * width, np.float32), np.empty(considered * width, np.float32)
    ones = np.ones(width, np.float32)
    for row in range(listed.shape[0]):
        for first in range(0, listed.shape[1], CHUNK_ITEMS):
            chunk = listed[row, first : first + CHUNK_ITEMS]
            items = gathered[: dims * chunk.size].reshape(dims, chunk.size)
            _gather_items(chunk, rights, items)
            _clear(room)
            entries.total[:] = 0.0
            start, end = rows.indptr[row], rows.indptr[row + 1]
            n_held = end - start
            if n_held <= considered:
                _hold_all(rows, start, end, lefts, scales[row], entries.vectors, entries.total)
                entries.columns[:n_held] = rows.indices[start:end]
            else:
                whole = np.dot(items, ones[: chunk.size]) * scales[row]
                n_held = _hold_largest(rows, start, end, lefts, scales[row], whole, entries)
            products = of_entries[: n_held * chunk.size].reshape(n_held, chunk.size)
            np.dot(entries.vectors[:n_held], items, products)
            _keep(products, entries.columns[:n_held], room)
            _add_up(entries.total, items, room.added)
            _report(room, chunk, end - start, row, first, terms)


@compiled
def _hold_all(
    rows: Ragged, start: Whole, end: Whole, lefts: Floats, scales: Floats, vectors: Floats, total: Floats
) -> None:
    """Fill in the scaled vectors of some entries times their factors, and add them up."""
    for place in range(end - start):
        if start + place + AHEAD < end:
            prefetch(lefts[rows.indices[start + place + AHEAD]])
        column, factor = rows.indices[start + place], rows.values[start + place]
        for dimension in range(total.size):
            vectors[place, dimension] = factor * scales[dimension] * lefts[column, dimension]
            total[dimension] += vectors[place, dimension]


@compiled
def _hold_largest(
    rows: Ragged, start: Whole, end: Whole, lefts: Floats, scales: Floats, whole: Floats, entries: _Entries
) -> int:
    """The same of the entries that add most to the whole list, ties by the smaller column; gives how many there are."""
    shares, considered = entries.shares[: end - start], entries.columns.size
    for entry in range(start, end):
        if entry + AHEAD < end:
            prefetch(lefts[rows.indices[entry + AHEAD]])
        shares[entry - start] = rows.values[entry] * np.float32(dot(lefts[rows.indices[entry]], whole))
        for dimension in range(scales.size):
            entries.total[dimension] += rows.values[entry] * scales[dimension] * lefts[rows.indices[entry], dimension]
    least = np.partition(shares, shares.size - considered)[shares.size - considered]
    ties, place = considered, 0
    for share in shares:
        ties -= share > least
    for entry in range(start, end):
        share = shares[entry - start]
        if share > least or (share == least and ties > 0):
            ties -= share == least
            column, factor = rows.indices[entry], rows.values[entry]
            entries.columns[place] = column
            for dimension in range(scales.size):
                entries.vectors[place, dimension] = factor * scales[dimension] * lefts[column, dimension]
            place += 1
    return place


@compiled
def _largest_weights(rows: Ragged, weights: Floats, listed: NDArray[np.int64], room: _Room, terms: Terms) -> None:
    of_entries = np.empty(CHUNK_ENTRIES * room.added.size, np.float32)
    for row in range(listed.shape[0]):
        for first in range(0, listed.shape[1], CHUNK_ITEMS):
            chunk = listed[row, first : first + CHUNK_ITEMS]
            _clear(room)
            for start in range(rows.indptr[row], rows.indptr[row + 1], CHUNK_ENTRIES):
                end = min(start + CHUNK_ENTRIES, rows.indptr[row + 1])
                products = of_entries[: (end - start) * chunk.size].reshape(end - start, chunk.size)
                for place in range(end - start):
                    _weigh(chunk, weights[rows.indices[start + place]], rows.values[start + place], products[place])
                    for item in range(chunk.size):
                        room.added[item] += products[place, item]
                _keep(products, rows.indices[start:end], room)
            _report(room, chunk, rows.indptr[row + 1] - rows.indptr[row], row, first, terms)


@compiled
def _weigh(listed: NDArray[np.int64], weights: Floats, factor: Real, products: Floats) -> None:
    for place in range(listed.size):
        products[place] = factor * weights[listed[place]] if listed[place] >= 0 else 0.0


@compiled
def _clear(room: _Room) -> None:
    room.largest[:], room.owners[:], room.added[:] = 0.0, -1, 0.0


@compiled
def _keep(products: Floats, columns: NDArray[np.int32], room: _Room) -> None:
    """Keep the largest terms of each item among those of some columns, (columns, items), which are overwritten."""
    for entry in range(columns.size):
        room.rising[:] = columns[entry]
        for kept in range(room.largest.shape[0]):
            _keep_larger(products[entry], room.rising, room.largest[kept], room.owners[kept])


@compiled
def _report(room: _Room, listed: NDArray[np.int64], n_entries: Whole, row: Whole, first: Whole, terms: Terms) -> None:
    for place in range(listed.size):
        if listed[place] >= 0:
            terms.sums[row, first + place] = np.float32(room.added[place])
            terms.counts[row, first + place] = n_entries
            for kept in range(room.largest.shape[0]):
                terms.values[row, first + place, kept] = room.largest[kept, place]
                terms.columns[row, first + place, kept] = room.owners[kept, place]


@compiled
def _keep_larger(rising: Floats, columns: NDArray[np.int32], largest: Floats, owners: NDArray[np.int32]) -> None:
    """Keep the larger of two terms of each item and hand on the other; without branches, so that it takes vectors."""
    for item in range(rising.size):
        term, kept, column, owner = rising[item], largest[item], columns[item], owners[item]
        is_larger = term > kept
        largest[item], rising[item] = (term, kept) if is_larger else (kept, term)
        owners[item], columns[item] = (column, owner) if is_larger else (owner, column)


@compiled
def _gather_items(listed: NDArray[np.int64], rights: Floats, items: Floats) -> None:
    """Fill in the items' vectors as columns, which products take less time with; 0 for padding."""
    for place in range(listed.size):
        if place + AHEAD < listed.size and listed[place + AHEAD] >= 0:
            prefetch(rights[listed[place + AHEAD]])
        item = listed[place]
        for dimension in range(items.shape[0]):
            items[dimension, place] = rights[item, dimension] if item >= 0 else 0.0


@compiled
def _add_up(total: Floats, items: Floats, sums: NDArray[np.float64]) -> None:
    """The products of the sum of all entries with each item: the sums of their terms."""
    sums[:] = 0.0
    for dimension in range(total.size):
        for place in range(items.shape[1]):
            sums[place] += np.float64(total[dimension]) * np.float64(items[dimension, place])
