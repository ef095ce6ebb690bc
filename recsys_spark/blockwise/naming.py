"""Positions in a distributed file of strings become these strings when a table leaves the task, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray

from recsys_spark.blockwise.files import MappedStrings

_MOST_SPARSE = 4  # times as many positions as there are could occur: beyond that, hashing takes less memory

Names = Mapping[str, MappedStrings]
"""Strings by the name of the column that holds lists of positions in them, or lists of such lists."""


def with_names(batch: pa.RecordBatch, names: Names) -> pa.RecordBatch:
    """The batch with strings where it had positions."""
    for column, strings in names.items():
        named = _renamed(batch.column(column), strings.take)
        batch = batch.set_column(batch.schema.get_field_index(column), column, named)
    return batch


def with_dictionaries(table: pa.Table, names: Names) -> pa.Table:
    """The table with dictionaries of strings where it had positions: each string is looked up once."""
    for column, strings in names.items():
        named = _renamed(table.column(column).combine_chunks(), partial(_coded, strings))
        table = table.set_column(table.schema.get_field_index(column), column, named)
    return table


def _coded(strings: MappedStrings, positions: pa.Array) -> pa.DictionaryArray:
    codes, used = _codes(positions.to_numpy())
    return pa.DictionaryArray.from_arrays(pa.array(codes), strings.take(pa.array(used)))


def _renamed(lists: pa.ListArray, give: Callable[[pa.Array], pa.Array]) -> pa.ListArray:
    """Lists, of lists or not, with what is given for the positions in them."""
    inner = lists.flatten()
    return _lists(lists, _renamed(inner, give) if kinds.is_list(inner.type) else give(inner))


def _codes(positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """For each position its place among those that occur, and these. Memory: at most 20 bytes a given position."""
    span = int(positions.max(initial=-1)) + 1
    if span > _MOST_SPARSE * positions.size:
        found = pa.array(positions).dictionary_encode()
        return found.indices.to_numpy(), found.dictionary.to_numpy()
    place = np.zeros(span, np.int32)
    place[positions] = 1
    used = np.flatnonzero(place)
    place[used] = np.arange(used.size, dtype=np.int32)
    return place.take(positions), used


def _lists(lists: pa.ListArray, values: pa.Array) -> pa.ListArray:
    """Lists as long as the given ones, of other values."""
    kind = pa.list_(pa.field("element", values.type, nullable=False))
    return pa.ListArray.from_arrays(pc.subtract(lists.offsets, lists.offsets[0]), values, type=kind)
