"""What is known of items beside who took them: the values of their attributes, each of which gets a vector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists, rows_of_ones
from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.pooling import pool_rows

MOST_OF_AN_ITEM = 16
"""Features of an item; of more, the rarest of all are kept, which tell most."""

_LEAST_ITEMS = 2  # a value of one item only tells no more than the item itself
_BETWEEN = re.compile(r"\s*[|;,]\s*")


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """The features of each item, ascending: `lists` of positions up to `size`."""

    lists: IndexLists
    size: int

    def select(self, items: NDArray[np.intp]) -> ItemFeatures:
        """Those of some items, in their order."""
        lengths = np.diff(self.lists.indptr)[items]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(indptr[-1]) + np.repeat(self.lists.indptr[items] - indptr[:-1], lengths)
        return ItemFeatures(IndexLists(indptr, self.lists.indices[places]), self.size)

    def padded(self) -> NDArray[np.int32]:
        """The features of each item, (items, most), filled up by `size`, which is none of them."""
        lengths = np.diff(self.lists.indptr)
        padded = np.full((len(lengths), max(int(lengths.max(initial=0)), 1)), self.size, np.int32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = self.lists.indices
        return padded

    def pool(self, vectors: Floats) -> Floats:
        """The sum of the vectors, (size, d), of each item's features over the root of how many, (items, d)."""
        return pool_rows(rows_of_ones(self.lists, self.size), vectors)


def find_features(attributes: Iterable[Mapping[str, str]], names: tuple[str, ...]) -> ItemFeatures:
    """The features of items by their attributes of some names, whose values are split at `|`, `;` and `,`.

    A value is one feature for each name, whatever its case; values of a single item are none. 24 bytes a value of an
    item and 200 a value while they are found.
    """
    known: dict[tuple[str, str], int] = {}
    of_items = [_numbers_of(item, names, known) for item in attributes]
    counts = Counter(number for numbers in of_items for number in numbers)
    kept = {number: place for place, number in enumerate(sorted(n for n, c in counts.items() if c >= _LEAST_ITEMS))}
    lists = []
    for numbers in of_items:
        common = sorted((number for number in numbers if number in kept), key=lambda number: (counts[number], number))
        lists.append(sorted(kept[number] for number in common[:MOST_OF_AN_ITEM]))
    return ItemFeatures(_packed(lists), len(kept))


def list_values(texts: Iterable[str | None]) -> IndexLists:
    """All values of one attribute of each item, numbered from 0, ascending; they are split as by `find_features`."""
    known: dict[tuple[str, str], int] = {}
    return _packed([sorted(_numbers_of({"": text or ""}, ("",), known)) for text in texts])


def _numbers_of(item: Mapping[str, str], names: tuple[str, ...], known: dict[tuple[str, str], int]) -> set[int]:
    """The numbers of an item's values; new values get the next ones."""
    values = {
        (name, value) for name in names for value in _BETWEEN.split(item.get(name, "").strip().casefold()) if value
    }
    return {known.setdefault(value, len(known)) for value in sorted(values)}


def _packed(lists: list[list[int]]) -> IndexLists:
    indptr = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
    return IndexLists(indptr, np.fromiter((place for each in lists for place in each), np.int32, int(indptr[-1])))
