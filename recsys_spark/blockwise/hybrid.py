"""A blend of models: every component's scores deviate by its weight over the items, and their sums make the lists.

score(u, i) = sum_c w_c(u) (s_c(u, i) - mean_i) / sigma_c(u), over the items that component c knows; it adds nothing to
others. Components that are products of vectors stand side by side and are one product: the deviation of u^T v_i over
the items is sqrt(u^T C u), C being the items' covariance, so it scales the users' side alone. The scores of other
components are added to the products of a few users at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blockwise.blocks import TEST, TRAIN, VALIDATION, array_of, items_in_splits
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.profiles import Floats, ScoreProfile, UserScores, VectorProfile
from recsys_spark.blockwise.scorers import SCORES_AT_ONCE, SEEN_COLUMNS, ItemVectors, PopularityScorer, Scored, or_else
from recsys_spark.kernels.blending import Moments, add_standardised, inverse_deviations, scaled_queries
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_pairs
from recsys_spark.kernels.topk import TopK, empty_top_k

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class VectorComponent:
    """Products of users' vectors with the columns `first` to `first + dims` of the items' vectors."""

    name: str
    profile: VectorProfile
    first: int
    covariance: MappedArray


@dataclass(frozen=True)
class ScoreComponent:
    """Scores that are no product of vectors."""

    name: str
    profile: ScoreProfile


Component = VectorComponent | ScoreComponent


@dataclass(frozen=True)
class SegmentWeights:
    """Weights by how many items a user has: row s of `weights` from `bounds[s - 1]` items on, row 0 below all."""

    bounds: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]

    def of(self, counts: NDArray[np.int64]) -> Weights:
        """The weights of users with so many items, (users, components)."""
        return np.array(self.weights, np.float64)[
            np.searchsorted(np.array(self.bounds, np.int64), counts, side="right")
        ]


@dataclass(frozen=True)
class HybridScorer:
    """The blend; users without an item get the fallback's list.

    `items` holds the centered vectors of all vector components side by side, 0 where one does not know an item. Memory
    of a task, beside its block: 16 MB of sums, and twice that for a component whose scores are added.
    """

    items: ItemVectors
    components: tuple[Component, ...]
    weights: SegmentWeights
    hold_out: bool
    fallback: PopularityScorer

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of columns."""
        return tuple(sorted({*SEEN_COLUMNS}.union(*(component.profile.columns for component in self.components))))

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        counts = self.history(block)
        blend = BlockBlend(self, block)
        best = blend.best(np.arange(len(counts)), self.weights.of(counts), excluded, k)
        scored = or_else(best, "hybrid", self.fallback, excluded, counts == 0)
        return scored._replace(moments=blend.moments)

    def history(self, block: Block) -> NDArray[np.int64]:
        """How many items each user has, as far as the models may know, (users,)."""
        known = items_in_splits(block, (TRAIN,) if self.hold_out else (TRAIN, VALIDATION, TEST))
        return np.asarray(np.diff(known.indptr))


class BlockBlend:
    """The components over the users of one block; `moments` are those of the users that were scored."""

    def __init__(self, scorer: HybridScorer, block: Block) -> None:
        self._items, self._places = scorer.items, scorer.items.places.load()
        self._vectors: dict[int, tuple[VectorComponent, Floats]] = {}
        self._scores: dict[int, tuple[ScoreComponent, UserScores]] = {}
        for number, component in enumerate(scorer.components):
            if isinstance(component, VectorComponent):
                self._vectors[number] = component, component.profile.of(block)
            else:
                self._scores[number] = component, component.profile.of(block)
        shape = array_of(block, "indptr", np.int64).size - 1, len(scorer.components)
        self.moments = Moments(np.zeros(shape), np.zeros(shape))
        for number, (vectors_of, vectors) in self._vectors.items():
            self.moments.inverses[:, number] = inverse_deviations(vectors, vectors_of.covariance.load())
        self._dims = scorer.items.shards[0].vectors.load().shape[1]

    def best(self, users: NDArray[np.int64], weights: Weights, excluded: IndexLists, k: int) -> TopK:
        """The k best items, as item positions, of some users of the block by their weights, (users, components)."""
        queries = self._queries(users, weights)
        if not any(weights[:, number].any() for number in self._scores):
            return self._items.best(queries, excluded, k)
        found = empty_top_k(len(users), k, -np.inf, np.float32)
        for some in self._tiles(len(users)):
            added = self._additions(users[some], weights[some])
            best = self._items.best(queries[some], excluded.slice_rows(some.start, some.stop), k, added)
            found.indices[some], found.scores[some] = best.indices, best.scores
        return found

    def pairs(self, users: NDArray[np.int64], lists: IndexLists) -> Floats:
        """The standardised score by each component of each user's listed items, (pairs, components)."""
        owners = np.repeat(np.arange(len(users)), np.diff(lists.indptr))
        places = self._places[lists.indices]
        scores = np.zeros((len(places), len(self._vectors) + len(self._scores)), np.float32)
        for number in self._vectors:
            queries = self._queries(users, self._alone(len(users), number))
            scores[:, number] = self._products(queries[owners], places)
        for number in self._scores:
            for some in self._tiles(len(users)):
                added = self._additions(users[some], self._alone(some.stop - some.start, number))
                entries = slice(lists.indptr[some.start], lists.indptr[some.stop])
                scores[entries, number] = added[owners[entries] - some.start, places[entries]]
        return scores

    def alone(self, users: NDArray[np.int64], excluded: IndexLists, k: int) -> Iterator[TopK]:
        """The k best items by each component."""
        for number in range(len(self._vectors) + len(self._scores)):
            yield self.best(users, self._alone(len(users), number), excluded, k)

    def _alone(self, n_users: int, number: int) -> Weights:
        weights = np.zeros((n_users, len(self._vectors) + len(self._scores)))
        weights[:, number] = 1.0
        return weights

    def _queries(self, users: NDArray[np.int64], weights: Weights) -> Floats:
        queries = np.zeros((len(users), self._dims), np.float32)
        for number, (component, vectors) in self._vectors.items():
            scaled = scaled_queries(vectors[users], self.moments.inverses[users, number] * weights[:, number])
            queries[:, component.first : component.first + scaled.shape[1]] += scaled
        return queries

    def _additions(self, users: NDArray[np.int64], weights: Weights) -> Floats:
        totals = np.zeros((len(users), len(self._items.positions.load())), np.float32)
        for number, (component, scores) in self._scores.items():
            if weights[:, number].any():
                places = self._places[component.profile.positions.load()]
                means, inverses = add_standardised(totals, scores(users), places, weights[:, number])
                self.moments.means[users, number], self.moments.inverses[users, number] = means, inverses
        return totals

    def _products(self, queries: Floats, places: NDArray[np.int32]) -> Floats:
        products = np.zeros(len(places), np.float32)
        for shard in self._items.shards:
            vectors = shard.vectors.load()
            is_here = (places >= shard.first) & (places < shard.first + len(vectors))
            products[is_here] = score_pairs(queries[is_here], vectors[places[is_here] - shard.first])
        return products

    def _tiles(self, n_users: int) -> Iterator[slice]:
        step = max(1, SCORES_AT_ONCE // max(len(self._items.positions.load()), 1))
        for start in range(0, n_users, step):
            yield slice(start, min(start + step, n_users))
