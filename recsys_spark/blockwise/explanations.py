"""Reasons beside the lists: the columns of `recommendations` that say why each item is there.

They explain the scores that lists are made of: those before a re-rank for diversity. Memory of a task beyond that of
the scorer: 24 bytes x (terms + 2) x k x users of a block, and of a blend 8 bytes x components x k x users more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql.pandas.types import to_arrow_type

from recsys_spark.blockwise.blocks import lists_of
from recsys_spark.blockwise.files import MappedArray, MappedStrings
from recsys_spark.blockwise.hybrid import HybridScorer, VectorComponent
from recsys_spark.blockwise.naming import Names
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.reasons import (
    BECAUSE_USERS,
    POPULAR,
    POPULAR_IN_SEGMENT,
    UNEXPLAINED,
    Evidence,
    Listed,
    Source,
)
from recsys_spark.blockwise.scorers import Scored
from recsys_spark.kernels.boosts import without_boost
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.listed import listed_products, named_terms
from recsys_spark.kernels.reasons import Terms, no_terms
from recsys_spark.kernels.topk import TopK
from recsys_spark.tables import REASON_COLUMNS

FALLBACKS = {"popularity": POPULAR, "segment_popularity": POPULAR_IN_SEGMENT}
"""The kind of reason of the lists that are not the model's, by their tier."""


class Explained(NamedTuple):
    """Evidence for each listed item, (users, k), and the place of the model among those that could be explained."""

    kinds: NDArray[np.uint8]
    models: NDArray[np.int32]
    terms: Terms


class Explainer(Protocol):
    """Explains the listed items of a block by models, whose names are `models`."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of blocks that it reads."""
        ...

    def __call__(self, block: Block, scored: Scored, listed: Listed) -> Explained:
        """Of items that are listed, by how they were scored."""
        ...


@dataclass(frozen=True)
class OneModel:
    """Lists of a single model, with `most` terms an item."""

    model: str
    source: Source
    most: int

    @property
    def models(self) -> tuple[str, ...]:
        """Its name."""
        return (self.model,)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.columns

    def __call__(self, block: Block, scored: Scored, listed: Listed) -> Explained:
        """As in `Explainer`."""
        kinds, terms = self.source(block, listed, self.most)
        return Explained(kinds, np.zeros(listed.shape, np.int32), terms)


@dataclass(frozen=True)
class BlendedModels:
    """Lists of a blend: each item by the component that adds most to its score, whose terms are scaled as it is.

    `sources` are those of the components, in their order.
    """

    blend: HybridScorer
    sources: tuple[Source, ...]
    most: int

    @property
    def models(self) -> tuple[str, ...]:
        """The components' names."""
        return tuple(component.name for component in self.blend.components)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the blend and of all sources."""
        return tuple({*self.blend.columns}.union(*(source.columns for source in self.sources)))

    def __call__(self, block: Block, scored: Scored, listed: Listed) -> Explained:
        """As in `Explainer`."""
        assert scored.moments is not None  # noqa: S101 - a blend always gives them
        weights = self.blend.weights.of(self.blend.history(block))
        factors = weights * scored.moments.inverses
        places, known = self.blend.items.places.load(), {}
        parts = np.zeros((*listed.shape, len(self.sources)), np.float32)
        for number, component in enumerate(self.blend.components):
            if isinstance(component, VectorComponent):
                queries = (component.profile.of(block) * factors[:, [number]]).astype(np.float32)
                parts[:, :, number] = self._products(queries, np.where(listed >= 0, places[listed], -1), component)
            else:
                known[number] = self.sources[number](block, listed, self.most)
                raw = known[number].terms.sums - scored.moments.means[:, [number]]
                is_known = _flags(component.profile.positions, len(places))[listed]
                parts[:, :, number] = np.where(is_known, factors[:, [number]] * raw, 0.0)
        counting = np.where((weights > 0)[:, None, :], parts, -np.inf)
        leading = counting.argmax(axis=2).astype(np.int32)
        return self._of_leading(block, listed, leading, factors, known)

    def _products(
        self, queries: NDArray[np.float32], places: NDArray[np.int32], component: VectorComponent
    ) -> NDArray[np.float32]:
        found = np.zeros(places.shape, np.float32)
        for shard in self.blend.items.shards:
            vectors = shard.vectors.load()
            here = np.where((places >= shard.first) & (places < shard.first + len(vectors)), places - shard.first, -1)
            found += listed_products(queries, vectors, here, component.first)
        return found

    def _of_leading(
        self,
        block: Block,
        listed: Listed,
        leading: NDArray[np.int32],
        factors: NDArray[np.float64],
        known: dict[int, Evidence],
    ) -> Explained:
        kinds = np.full(listed.shape, UNEXPLAINED, np.uint8)
        terms = no_terms((listed.shape[0], listed.shape[1]), self.most)
        for number, source in enumerate(self.sources):
            is_led = (leading == number) & (listed >= 0)
            if is_led.any():
                found = known.get(number) or source(block, np.where(is_led, listed, -1), self.most)
                kinds[is_led] = found.kinds[is_led]
                for into, array in zip(terms, _scaled(found.terms, factors[:, number]), strict=True):
                    into[is_led] = array[is_led]
        return Explained(kinds, leading, terms)


@dataclass(frozen=True)
class ListReasons:
    """Reasons of the lists of a block; `kinds` and `models` name those of `KINDS` and of `reason_models`.

    Neighbors are counted where `has_neighbors`, and named where there are `user_ids`, of all users. `factors` of all
    items are what their scores were multiplied by.
    """

    explainer: Explainer
    kinds: MappedStrings
    models: MappedStrings
    has_neighbors: bool = False
    user_ids: MappedStrings | None = None
    factors: MappedArray | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the explainer."""
        return self.explainer.columns

    @property
    def _has_models(self) -> bool:
        return len(self.explainer.models) > 1

    def names(self, item_ids: MappedStrings) -> Names:
        """What the positions in the columns stand for."""
        names = {"reasons": self.kinds, "because_item_ids": item_ids}
        names |= {"reason_models": self.models} if self._has_models else {}
        return names | ({} if self.user_ids is None else {"because_user_ids": self.user_ids})

    def of(self, block: Block, scored: Scored) -> list[pa.Array]:
        """The columns of reasons, one row a user."""
        scored = scored._replace(best=self._without_factors(scored.best))
        is_fallback = np.isin(scored.tiers, list(FALLBACKS))
        listed = np.where(is_fallback[:, None], -1, scored.best.indices)
        found = self.explainer(block, scored, listed)
        for number, (tier, kind) in enumerate(FALLBACKS.items(), start=len(self.explainer.models)):
            users = scored.tiers == tier
            found.kinds[users], found.models[users] = kind, number
        columns = self._columns(_flattened(found, scored.best), scored.best)
        nulls = no_reasons(len(listed))
        return [columns.get(column.name, null) for column, null in zip(REASON_COLUMNS, nulls, strict=True)]

    def _without_factors(self, best: TopK) -> TopK:
        """The lists with the scores that the model gave."""
        if self.factors is None:
            return best
        by = np.where(best.indices >= 0, self.factors.load()[best.indices], np.float32(1))
        return TopK(best.indices, without_boost(best.scores, by))

    def _columns(self, found: Explained, best: TopK) -> dict[str, pa.Array]:
        """Those that say something, of items without the padding of their lists."""
        items = IndexLists(_starts((best.indices >= 0).sum(axis=1)), found.models)
        is_vote, terms = found.kinds == BECAUSE_USERS, found.terms
        own, contributions = named_terms(terms.columns, terms.values, ~is_vote)
        columns = {
            "reasons": lists_of(items, pa.array(found.kinds.astype(np.int32))),
            "because_item_ids": _nested(items, own, own.indices),
            "contributions": _nested(items, own, contributions),
            "residuals": lists_of(items, pa.array(best.scores[best.indices >= 0] - terms.sums)),
        }
        if self._has_models:
            columns["reason_models"] = lists_of(items, pa.array(found.models))
        if self.has_neighbors:
            columns["neighbor_counts"] = lists_of(items, pa.array(np.where(is_vote, terms.counts, 0).astype(np.int32)))
        if self.user_ids is not None:
            users, _ = named_terms(terms.columns, terms.values, is_vote)
            columns["because_user_ids"] = _nested(items, users, users.indices)
            both, contributions = named_terms(terms.columns, terms.values, np.ones_like(is_vote))
            columns["contributions"] = _nested(items, both, contributions)
        return columns


def named_models(explainer: Explainer) -> tuple[str, ...]:
    """The names of `ListReasons.models`, in their order."""
    return (*explainer.models, *FALLBACKS)


def no_reasons(n_users: int) -> list[pa.Array]:
    """The columns of reasons where none are given."""
    return [pa.nulls(n_users, to_arrow_type(column.type)) for column in REASON_COLUMNS]


def _flattened(found: Explained, best: TopK) -> Explained:
    """Without the padding of the lists, one list after the other; views where there is none."""
    is_item = best.indices >= 0

    def flat(array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(-1, *array.shape[2:]) if is_full else array[is_item]

    is_full = bool(is_item.all())
    return Explained(flat(found.kinds), flat(found.models), Terms._make(flat(part) for part in found.terms))


def _nested(items: IndexLists, inner: IndexLists, values: NDArray[Any]) -> pa.ListArray:
    """For each item of each list its own list of values."""
    return lists_of(items, lists_of(inner, pa.array(values)))


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _flags(positions: MappedArray, n_items: int) -> NDArray[np.bool_]:
    flags = np.zeros(n_items, bool)
    flags[positions.load()] = True
    return flags


def _scaled(terms: Terms, factors: NDArray[np.float64]) -> Terms:
    """Terms times a factor, (users,)."""
    factor = factors.astype(np.float32)[:, None]
    return terms._replace(values=terms.values * factor[:, :, None], sums=terms.sums * factor)
