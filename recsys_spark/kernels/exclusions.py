"""What a row never gets: positions it excludes, or all but those it is allowed, and how rules make such lists."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists

Pairs = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Exclusions(IndexLists):
    """Positions that each row never gets; of the rows that `are_allowed`, (rows,), all but these, ascending there."""

    are_allowed: NDArray[np.bool_]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.are_allowed.shape != (self.n_rows,) or self.are_allowed.dtype != np.bool_:
            raise ValueError(
                f"are_allowed must be bool ({self.n_rows},), got {self.are_allowed.dtype} {self.are_allowed.shape}"
            )

    def slice_rows(self, start: int, stop: int) -> "Exclusions":
        """Give rows `start` to `stop` (excluded); the positions are a view, not a copy."""
        lists = super().slice_rows(start, stop)
        return Exclusions(lists.indptr, lists.indices, self.are_allowed[start:stop])

    def take_rows(self, rows: NDArray[Any]) -> "Exclusions":
        """Give some rows, in that order; copies."""
        lists = super().take_rows(rows)
        return Exclusions(lists.indptr, lists.indices, self.are_allowed[rows])


def allowed_rows(excluded: IndexLists) -> NDArray[np.bool_]:
    """Of which rows the positions are those that they get, (rows,), not those that they never get."""
    if isinstance(excluded, Exclusions):
        return excluded.are_allowed
    return np.zeros(excluded.n_rows, np.bool_)


def with_rows_of(excluded: IndexLists, indptr: NDArray[np.int64], indices: NDArray[Any]) -> IndexLists:
    """Other positions, of the same rows: those that they get where the given ones are."""
    if isinstance(excluded, Exclusions):
        return Exclusions(indptr, indices, excluded.are_allowed)
    return IndexLists(indptr, indices)


class HiddenItems(NamedTuple):
    """What each row does not get, and how many items of it are hidden as seen, and as denied, (rows,) int32 each."""

    lists: Exclusions
    seen_counts: NDArray[np.int32]
    denied_counts: NDArray[np.int32]


def hide_items(
    gets_items: NDArray[np.bool_], has_candidates: NDArray[np.bool_], seen: Pairs, denied: Pairs, candidates: Pairs
) -> HiddenItems:
    """Rows with candidates get these less what is seen or denied, others all but that; some, (rows,), get nothing.

    Pairs are rows and columns, (n,) each, in any order and as often as they come. An item that is both counts as
    denied; with candidates only those are counted. Columns are below 2^31.
    """
    n_rows, of_denied = len(gets_items), _keys(denied)
    of_seen, of_candidates = np.setdiff1d(_keys(seen), of_denied, assume_unique=True), _keys(candidates)
    is_candidate_row = has_candidates.astype(bool)

    def counted(keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of rows without candidates, and of others what is a candidate."""
        kept: NDArray[np.int64] = keys[~is_candidate_row[keys >> 32] | np.isin(keys, of_candidates, assume_unique=True)]
        return kept

    hidden_seen, hidden_denied = counted(of_seen), counted(of_denied)
    hidden = np.union1d(hidden_seen, hidden_denied)
    left = np.setdiff1d(of_candidates[is_candidate_row[of_candidates >> 32]], hidden, assume_unique=True)
    lists = np.union1d(hidden[~is_candidate_row[hidden >> 32]], left)
    lists = lists[gets_items[lists >> 32]]
    indptr = np.searchsorted(lists >> 32, np.arange(n_rows + 1)).astype(np.int64)
    exclusions = Exclusions(indptr, (lists & 0xFFFFFFFF).astype(np.int32), is_candidate_row | ~gets_items)
    seen_counts, denied_counts = (
        np.bincount(keys >> 32, minlength=n_rows).astype(np.int32) for keys in (hidden_seen, hidden_denied)
    )
    return HiddenItems(exclusions, seen_counts, denied_counts)


def _keys(pairs: Pairs) -> NDArray[np.int64]:
    """Each pair once, as a whole number that sorts by row, then by column."""
    rows, columns = pairs
    return np.unique(rows.astype(np.int64) << 32 | columns.astype(np.int64))
