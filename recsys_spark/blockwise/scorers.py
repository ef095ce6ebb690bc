"""What scores the items for a block of users: the embedding model, the nearest users, or popularity.

A scorer is pickled to the workers: it holds names of distributed files and plain values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blockwise.blocks import (
    TEST,
    TRAIN,
    VALIDATION,
    array_of,
    items_in_splits,
    training_rows,
    user_positions,
)
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.learned import LearnedSimilarity
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.tastes import TASTE_COLUMNS, Tastes
from recsys_spark.blockwise.user_rows import ROW_COLUMNS, ItemRange
from recsys_spark.kernels.blending import Moments
from recsys_spark.kernels.boosts import boost
from recsys_spark.kernels.bounds import ItemBounds
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.exclusions import with_rows_of
from recsys_spark.kernels.fold_in import rows_among
from recsys_spark.kernels.item_models import score_by_items
from recsys_spark.kernels.layout import user_columns
from recsys_spark.kernels.neighbor_scoring import score_from_neighbors
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.topk import TopK, empty_top_k, merge_top_k

SCORES_AT_ONCE = 4 << 20  # of a task: 16 MB


class Scored(NamedTuple):
    """The best items of each user of a block (positions, -1 padded) and where each list comes from.

    `moments`: of a blend, how the scores of its components were standardised.
    """

    best: TopK
    tiers: NDArray[Any]
    moments: Moments | None = None


SEEN_COLUMNS = ("indptr", "indices", "splits")
"""What `items_in_splits` reads of a block."""


class Scorer(Protocol):
    """Scores all items for the users of a block and keeps the k best that are not excluded.

    What is excluded may be `Exclusions`. `columns` are those of the blocks that it reads: others need not travel.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        ...

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user; `excluded` holds item positions."""
        ...


@dataclass(frozen=True)
class ItemShard:
    """Consecutive candidates: their vectors, (n, dims) float32, and bounds; the first's place among all candidates."""

    first: int
    vectors: MappedArray
    bounds: ItemBounds


@dataclass(frozen=True)
class ItemVectors:
    """The items that can be recommended, in `search_order`.

    `positions`: item position of each candidate; `places`: candidate of each item position, -1 for none; `factors` of
    the candidates' scores, or None.
    """

    shards: tuple[ItemShard, ...]
    positions: MappedArray
    places: MappedArray
    factors: MappedArray | None = None

    def best(
        self, users: NDArray[np.float32], excluded: IndexLists, k: int, additions: NDArray[np.float32] | None = None
    ) -> TopK:
        """The k items with the largest products, as item positions; what is added is by candidate, (users, n)."""
        masked, positions = _as_candidates(excluded, self.places.load()), self.positions.load()
        factors, found = None if self.factors is None else self.factors.load(), None
        for shard in self.shards:
            vectors = shard.vectors.load()
            here = slice(shard.first, shard.first + len(vectors))
            by = None if factors is None else factors[here]
            # What a later shard has must be among the best of those before.
            floors = None if found is None else found.scores[:, -1].copy()
            added = None if additions is None else additions[:, here]
            best = score_top_k(users, vectors, masked, k, shard.first, positions[here], shard.bounds, floors, added, by)
            found = best if found is None else merge_top_k(found, best, k, largest=True)
        assert found is not None  # noqa: S101 - there is at least one shard
        return found

    def boosted(self, items: NDArray[Any], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores that something else has given to candidates, by their item positions, times their factors."""
        return scores if self.factors is None else boost(scores, self.factors.load()[self.places.load()[items]])


@dataclass(frozen=True)
class EmbeddingScorer:
    """Products of user and item vectors; blocks carry `vectors` and `is_trained` of `user_embeddings`.

    A user without an embedding has a vector that picks the popularity column out of the item vectors.
    """

    items: ItemVectors
    columns = ("vectors", "is_trained")

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        users = array_of(block, "vectors", np.float32).reshape(excluded.n_rows, -1)
        is_trained = array_of(block, "is_trained", np.uint8).astype(bool)
        return Scored(self.items.best(users, excluded, k), np.where(is_trained, "embedding", "popularity"))


@dataclass(frozen=True)
class PopularityScorer:
    """The same popularity for everybody; `items` has one dimension."""

    items: ItemVectors
    columns = ()

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k most popular items that are not excluded, for each user."""
        return Scored(self.best(excluded, k), np.full(excluded.n_rows, "popularity"))

    def best(self, excluded: IndexLists, k: int) -> TopK:
        """The same, of users of whom nothing else is known."""
        return self.items.best(np.ones((excluded.n_rows, 1), np.float32), excluded, k)


@dataclass(frozen=True)
class ContentScorer:
    """Cosines of the users' tastes and what items are like, the same columns as those of embeddings.

    Users of whose items nothing is known get the most popular items that something is known of.
    """

    items: ItemVectors
    tastes: Tastes
    columns = TASTE_COLUMNS

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        tastes = self.tastes.of(block)
        has_taste = np.asarray(tastes.any(axis=1))
        users = user_columns(tastes, np.zeros(len(tastes), np.float32), has_taste)
        return Scored(self.items.best(users, excluded, k), np.where(has_taste, "content", "popularity"))


class ItemWeights(NamedTuple):
    """Weights of candidates by candidates, (c, c), mapped.

    `positions`: item position of each candidate; `places`: candidate of each item position, -1 for none.
    """

    weights: MappedArray
    positions: MappedArray
    places: MappedArray

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        """Map the three."""
        return self.weights.load(), self.positions.load(), self.places.load()


@dataclass(frozen=True)
class ItemWeightScorer:
    """What a user's items say about every item, by weights of items by items.

    Users without a candidate get the popularity list. With `factors` of all items, 0 for what is never listed. Memory
    of a task: 16 MB of scores, twice that where something is never listed, beside its block.
    """

    tier: str
    items: ItemWeights
    hold_out: bool
    fallback: PopularityScorer
    factors: MappedArray | None = None
    columns = ROW_COLUMNS

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        weights, positions, places = self.items.load()
        known = rows_among(training_rows(block, len(places), self.hold_out), places, len(weights), 1)
        listed = self._listed(positions)
        masked = _as_candidates(excluded, listed.places(places))
        nothing, step = np.zeros((len(listed.positions), 1), np.float32), max(1, SCORES_AT_ONCE // max(len(weights), 1))
        found = empty_top_k(known.n_rows, k, -np.inf, np.float32)
        for start in range(0, known.n_rows, step):
            some = slice(start, min(start + step, known.n_rows))
            scores = listed.columns(score_by_items(known.slice_rows(some.start, some.stop), weights))
            users, hidden = np.zeros((len(scores), 1), np.float32), masked.slice_rows(some.start, some.stop)
            best = score_top_k(
                users, nothing, hidden, k, item_idx=listed.positions, additions=scores, factors=listed.factors
            )
            found.indices[some], found.scores[some] = best.indices, best.scores
        has_nothing = np.diff(known.indptr) == 0
        return or_else(found, self.tier, self.fallback, excluded, has_nothing)

    def _listed(self, positions: NDArray[np.int32]) -> _ListedItems:
        if self.factors is None:
            return _ListedItems(None, positions, None)
        factors = self.factors.load()[positions]
        kept = np.flatnonzero(factors)
        return _ListedItems(kept if len(kept) < len(positions) else None, positions[kept], factors[kept])


class _ListedItems(NamedTuple):
    """Which candidates can be listed, None for all, and their item positions and factors."""

    kept: NDArray[np.intp] | None
    positions: NDArray[np.int32]
    factors: NDArray[np.float32] | None

    def places(self, places: NDArray[np.int32]) -> NDArray[np.int32]:
        """The places of items, -1 for none, among the listed ones, of those among all candidates."""
        if self.kept is None:
            return places
        found = np.full(len(places), -1, np.int32)
        found[self.positions] = np.arange(len(self.kept), dtype=np.int32)
        return found

    def columns(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those of the listed ones, of (q, candidates)."""
        return scores if self.kept is None else np.ascontiguousarray(scores[:, self.kept])


@dataclass(frozen=True)
class NeighborScorer:
    """Ratings of the nearest users, weighted by similarity; blocks carry the neighbors of their users.

    With `learned`, by what is learned of how much each neighbor tells about the user; with `factors` of all items, 0
    for what is never listed.

    Users without any behavior (nearest to them is who has done least), and those whose neighbors have nothing new for
    them, get the popularity list.
    """

    ranges: tuple[ItemRange, ...]
    hold_out: bool
    fallback: PopularityScorer
    mode: Literal["mean", "sum"]
    shrinkage: float
    learned: LearnedSimilarity | None = None
    factors: MappedArray | None = None
    columns = (*SEEN_COLUMNS, "first_user_idx", "neighbor_indptr", "neighbor_indices", "similarities")

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        neighbors = IndexLists(
            array_of(block, "neighbor_indptr", np.int64), array_of(block, "neighbor_indices", np.int32)
        )
        similarities = array_of(block, "similarities", np.float32)
        if self.learned is not None:
            similarities = self.learned.of(user_positions(block), neighbors, similarities)
        best, factors = None, None if self.factors is None else self.factors.load()
        for items in self.ranges:
            rows, first = items.load(), items.first_item
            by = None if factors is None else factors[first : first + rows.n_columns]
            some = score_from_neighbors(
                rows, neighbors, similarities, excluded, k, self.mode, self.shrinkage, first, by
            )
            best = some if best is None else merge_top_k(best, some, k, largest=True)
        assert best is not None  # noqa: S101 - there is at least one range
        known = items_in_splits(block, (TRAIN,) if self.hold_out else (TRAIN, VALIDATION, TEST))
        is_unknown = np.diff(known.indptr) == 0
        return or_else(best, "neighbors", self.fallback, excluded, is_unknown | (best.indices[:, 0] < 0))


def or_else(
    best: TopK, tier: str, fallback: PopularityScorer, excluded: IndexLists, is_fallback: NDArray[np.bool_]
) -> Scored:
    """The lists of a tier, and the most popular items that are not excluded for the users, (users,), who need them."""
    users = np.flatnonzero(is_fallback)
    if len(users):
        popular = fallback.best(excluded.take_rows(users), best.indices.shape[1])
        best = TopK(best.indices.copy(), best.scores.copy())
        best.indices[users], best.scores[users] = popular.indices, popular.scores
    return Scored(best, np.where(is_fallback, "popularity", tier))


def _as_candidates(excluded: IndexLists, places: NDArray[np.int32]) -> IndexLists:
    """Excluded item positions as ascending places among the candidates; items that are no candidates drop out."""
    found = places[excluded.indices]
    is_candidate = found >= 0
    kept_before = np.concatenate([[0], np.cumsum(is_candidate)]).astype(np.int64)
    indptr = kept_before[excluded.indptr]
    keys = (np.repeat(np.arange(excluded.n_rows), np.diff(indptr)) << 32) | found[is_candidate]
    keys.sort()
    return with_rows_of(excluded, indptr, (keys & 0xFFFFFFFF).astype(np.int32))
