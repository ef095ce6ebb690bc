"""Where the scores of listed items come from: the user's own items, his neighbors, or what is popular.

A source is pickled to the workers: it holds names of distributed files and plain values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blockwise.blocks import array_of, rows_of, user_positions
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.learned import LearnedSimilarity
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.profiles import Session, VectorProfile, session_rows
from recsys_spark.blockwise.scorers import ItemWeights
from recsys_spark.blockwise.tastes import TASTE_COLUMNS, Tastes
from recsys_spark.blockwise.user_rows import ROW_COLUMNS, ItemRange
from recsys_spark.kernels.attribution import (
    even_attribution,
    least_squares_attribution,
    pooled_attribution,
)
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.least_squares import WholeDataLoss
from recsys_spark.kernels.reasons import Terms, largest_products, largest_weights, no_terms
from recsys_spark.kernels.vote_reasons import largest_votes

KINDS = ("unexplained", "because_items", "because_users", "new_item_content", "popular", "popular_in_segment")
"""Kinds of reasons, by number."""

UNEXPLAINED, BECAUSE_ITEMS, BECAUSE_USERS, NEW_ITEM_CONTENT, POPULAR, POPULAR_IN_SEGMENT = range(len(KINDS))

Listed = NDArray[Any]
"""Item positions of the lists of a block, (users, k); -1 is padding, and what is not asked for."""


class Evidence(NamedTuple):
    """The kind of reason of each listed item, (users, k) of uint8, and the terms of its score.

    The columns of the terms are positions of the user's items, or of his neighbors for `because_users`.
    """

    kinds: NDArray[np.uint8]
    terms: Terms


class Source(Protocol):
    """What the scores of a model are made of; `columns` are those of the blocks that it reads."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        ...

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """Evidence for listed items, with `most` terms each."""
        ...


@dataclass(frozen=True)
class PopularItems:
    """The same for everybody: there is no term of a user's own."""

    columns = ()

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        kinds = np.where(listed >= 0, POPULAR, UNEXPLAINED).astype(np.uint8)
        return Evidence(kinds, no_terms((listed.shape[0], listed.shape[1]), most))


@dataclass(frozen=True)
class LikedContent:
    """The user's items by what they are like; `is_new`, (items,): nobody has had the item."""

    tastes: Tastes
    is_new: MappedArray
    columns = TASTE_COLUMNS

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        vectors = self.tastes.vectors.load()
        found = pooled_attribution(*self.tastes.weighted_rows(block), vectors, is_unit=True)
        terms = largest_products(found.rows, found.scales, vectors, vectors, listed, most)
        return _because_items(terms, listed, self.is_new)


@dataclass(frozen=True)
class SessionItems:
    """A user's newest items; `lefts` and `rights`, (items, d): their products are the scores by one item."""

    lefts: MappedArray
    rights: MappedArray
    session: Session
    is_new: MappedArray
    columns = TASTE_COLUMNS

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        lefts, rights = self.lefts.load(), self.rights.load()
        rows = session_rows(block, len(lefts), self.session, hold_out=False)
        scales = np.ones((rows.n_rows, lefts.shape[1]), np.float32)
        return _because_items(largest_products(rows, scales, lefts, rights, listed, most), listed, self.is_new)


@dataclass(frozen=True)
class PooledItems:
    """The user's items by their embeddings, (items, d), of those that are trained, (items,), which users are pooled of.

    `is_new`, (items,): the item's embedding is made of its content. `is_unit`: users are of length one.
    """

    vectors: MappedArray
    is_trained: MappedArray
    is_new: MappedArray
    is_unit: bool = False
    columns = ROW_COLUMNS

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        vectors, rows = self.vectors.load(), _trained_rows(block, self.is_trained)
        lengths = np.diff(rows.indptr)
        shares = np.repeat(1.0 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
        found = pooled_attribution(rows, shares, vectors, self.is_unit)
        terms = largest_products(found.rows, found.scales, vectors, vectors, listed, most)
        return _because_items(terms, listed, self.is_new)


@dataclass(frozen=True)
class EmbeddedItems:
    """The user's items by their embeddings, (items, d), of those that are trained, (items,), and his own vector.

    `is_new`, (items,): the item's embedding is made of its content. The items' vectors are turned, by `axes`, so that
    the Gram matrix of the trained ones has the `diagonal`; the users' are the first d columns of `users`. Terms are
    those of least squares with `loss`, and else even ones.
    """

    vectors: MappedArray
    is_trained: MappedArray
    is_new: MappedArray
    diagonal: MappedArray
    axes: MappedArray
    users: VectorProfile
    loss: WholeDataLoss | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        return (*ROW_COLUMNS, *self.users.columns)

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        vectors, rows = self.vectors.load(), _trained_rows(block, self.is_trained)
        turned = self.users.of(block)[:, : vectors.shape[1]] @ self.axes.load()
        diagonal, n_trained = self.diagonal.load(), int(self.is_trained.load().sum())
        if self.loss is None:
            found = even_attribution(rows, turned, vectors, diagonal, n_trained)
        else:
            found = least_squares_attribution(rows, turned, vectors, diagonal, self.loss, n_trained)
        terms = largest_products(found.rows, found.scales, vectors, vectors, listed, most)
        return _because_items(terms, listed, self.is_new)


@dataclass(frozen=True)
class WeighingItems:
    """The user's items by weights of items by items; all of them, or those of a session."""

    items: ItemWeights
    session: Session | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        return ROW_COLUMNS if self.session is None else TASTE_COLUMNS

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        weights, positions, places = self.items.load()
        rows = session_rows(block, len(places), self.session, hold_out=False)
        known = rows.select(places[rows.indices] >= 0)
        known = CsrRows(known.indptr, places[known.indices], known.values, len(weights))
        terms = largest_weights(known, weights, np.where(listed >= 0, places[listed], -1), most)
        named = np.where(terms.columns >= 0, positions[terms.columns], -1).astype(np.int32)
        return _because_items(terms._replace(columns=named), listed, None)


@dataclass(frozen=True)
class VotingUsers:
    """The neighbors that have an item; `shrinkage` of their mean, None for their sum."""

    ranges: tuple[ItemRange, ...]
    shrinkage: float | None
    learned: LearnedSimilarity | None = None
    columns = ("indptr", "first_user_idx", "neighbor_indptr", "neighbor_indices", "similarities")

    def __call__(self, block: Block, listed: Listed, most: int) -> Evidence:
        """As in `Source`."""
        neighbors = IndexLists(
            array_of(block, "neighbor_indptr", np.int64), array_of(block, "neighbor_indices", np.int32)
        )
        similarities = array_of(block, "similarities", np.float32)
        if self.learned is not None:
            similarities = self.learned.of(user_positions(block), neighbors, similarities)
        terms = no_terms((listed.shape[0], listed.shape[1]), most)
        for items in self.ranges:
            is_here = (listed >= items.first_item) & (listed < items.first_item + items.n_items)
            here = np.where(is_here, listed - items.first_item, -1)
            some = largest_votes(items.load(), neighbors, similarities, here, most, self.shrinkage)
            for into, array in zip(terms, some, strict=True):
                into[is_here] = array[is_here]
        return Evidence(np.where(terms.counts > 0, BECAUSE_USERS, UNEXPLAINED).astype(np.uint8), terms)


def _trained_rows(block: Block, is_trained: MappedArray) -> CsrRows:
    flags = is_trained.load()
    rows = rows_of(block, len(flags))
    return rows.select(flags[rows.indices])


def _because_items(terms: Terms, listed: Listed, is_new: MappedArray | None) -> Evidence:
    kinds = np.where(terms.columns[:, :, 0] >= 0, BECAUSE_ITEMS, UNEXPLAINED)
    if is_new is not None:
        kinds = np.where((listed >= 0) & is_new.load()[listed], NEW_ITEM_CONTENT, kinds)
    return Evidence(kinds.astype(np.uint8), terms)
