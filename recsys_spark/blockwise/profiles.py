"""What the components of a blend know of the users of a block: vectors beside those of items, or scores of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blockwise.blocks import TRAIN, array_of, rows_of, user_positions
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.learned import LearnedSimilarity
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.scorers import ItemWeights
from recsys_spark.blockwise.tastes import TASTE_COLUMNS
from recsys_spark.blockwise.user_rows import ROW_COLUMNS, ItemRange
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.encoder import Encoder, encode_rows
from recsys_spark.kernels.item_models import score_by_items
from recsys_spark.kernels.neighbor_scoring import sum_votes
from recsys_spark.kernels.pooling import pool_weighted, session_weights

Floats = NDArray[np.float32]
UserScores = Callable[[NDArray[np.int64]], Floats]
"""Scores of some users of a block, by their places in it, (q, items of the component)."""


class VectorProfile(Protocol):
    """Users' side of a product with item vectors; `columns` are those of the blocks that it reads."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        ...

    def of(self, block: Block) -> Floats:
        """The users' vectors, (users, d); 0 for those of whom nothing is known."""
        ...


class ScoreProfile(Protocol):
    """Scores of all items that a component knows, `positions` (c,), without a product of vectors."""

    @property
    def positions(self) -> MappedArray:
        """Item positions, (c,)."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        ...

    def of(self, block: Block) -> UserScores:
        """Scores by users of the block."""
        ...


@dataclass(frozen=True)
class Session:
    """The newest items of a user: the r-th of `most` counts 2^(-r / half_life), from 0."""

    most: int
    half_life: float


@dataclass(frozen=True)
class EmbeddedProfile:
    """The users' embeddings, and the 1 that picks the items' biases: the first `dims` of the columns of `vectors`."""

    dims: int
    columns = ("vectors", "is_trained")

    def of(self, block: Block) -> Floats:
        """The users' vectors, (users, d)."""
        n_users = array_of(block, "is_trained", np.uint8).size
        return array_of(block, "vectors", np.float32).reshape(n_users, -1)[:, : self.dims]


@dataclass(frozen=True)
class SessionProfile:
    """The pooled vectors of a user's newest items; `vectors` (n_items, d), mapped."""

    vectors: MappedArray
    session: Session
    hold_out: bool
    columns = TASTE_COLUMNS

    def of(self, block: Block) -> Floats:
        """The users' vectors, (users, d)."""
        vectors = self.vectors.load()
        rows = session_rows(block, len(vectors), self.session, self.hold_out)
        return pool_weighted(rows, rows.values, vectors)


@dataclass(frozen=True)
class EncodedProfile:
    """What an encoder makes of a user's items, and the 1 that picks the items' biases; `arrays` are the encoder's."""

    arrays: tuple[MappedArray, ...]
    hold_out: bool
    columns = ROW_COLUMNS

    def of(self, block: Block) -> Floats:
        """The users' vectors, (users, d + 1)."""
        encoder = Encoder(*(array.load() for array in self.arrays))
        return encode_rows(session_rows(block, len(encoder.inputs), None, self.hold_out), encoder)


@dataclass(frozen=True)
class PopularProfile:
    """The same for everybody: the popularity of the items is what counts."""

    columns = ("indptr",)

    def of(self, block: Block) -> Floats:
        """Ones, (users, 1)."""
        return np.ones((array_of(block, "indptr", np.int64).size - 1, 1), np.float32)


@dataclass(frozen=True)
class ItemWeightProfile:
    """What a user's items say about every item, by weights of items by items; all of them, or those of a session."""

    items: ItemWeights
    hold_out: bool
    session: Session | None = None

    @property
    def positions(self) -> MappedArray:
        """Item position of each candidate."""
        return self.items.positions

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        return ROW_COLUMNS if self.session is None else TASTE_COLUMNS

    def of(self, block: Block) -> UserScores:
        """Scores by users of the block."""
        weights, _, places = self.items.load()
        rows = session_rows(block, len(places), self.session, self.hold_out)
        known = rows.select(places[rows.indices] >= 0)
        known = CsrRows(known.indptr, places[known.indices], known.values, len(weights))
        return lambda users: score_by_items(known.take_rows(users), weights)


@dataclass(frozen=True)
class NeighborProfile:
    """The votes of the nearest users, by similarity; `positions` are the items that anybody has."""

    ranges: tuple[ItemRange, ...]
    positions: MappedArray
    learned: LearnedSimilarity | None = None
    columns = ("indptr", "first_user_idx", "neighbor_indptr", "neighbor_indices", "similarities")

    def of(self, block: Block) -> UserScores:
        """Scores by users of the block."""
        neighbors = IndexLists(
            array_of(block, "neighbor_indptr", np.int64), array_of(block, "neighbor_indices", np.int32)
        )
        similarities = array_of(block, "similarities", np.float32)
        if self.learned is not None:
            similarities = self.learned.of(user_positions(block), neighbors, similarities)
        positions = self.positions.load()

        def score(users: NDArray[np.int64]) -> Floats:
            entries = neighbors.entries_of(users)
            votes = [
                sum_votes(items.load(), neighbors.take_rows(users), similarities[entries]) for items in self.ranges
            ]
            return np.ascontiguousarray(np.hstack(votes)[:, positions])

        return score


def session_rows(block: Block, n_items: int, session: Session | None, hold_out: bool) -> CsrRows:
    """The users' items, of the train split only when `hold_out`, with their weights in the session; 1 without one."""
    rows = rows_of(block, n_items)
    is_known = array_of(block, "splits", np.uint8) == TRAIN if hold_out else np.ones(rows.nnz, bool)
    known = rows.select(is_known)
    if session is None:
        return CsrRows(known.indptr, known.indices, np.ones(known.nnz, np.float32), n_items)
    ages = array_of(block, "ages", np.float32)[is_known]
    return CsrRows(known.indptr, known.indices, session_weights(known, ages, session.most, session.half_life), n_items)
