"""Reasons beside the lists: the columns of `recommendations` that say why each item is there.

They explain the scores that lists are made of: those before a re-rank for diversity. Memory of a task beyond that of
the scorer: 24 bytes x (terms + 2) x k x users of a block, and of a blend 4 bytes x components x k x users more.
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
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.reasons import Terms, listed_products, no_terms
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
        factors = self.blend.weights.of(self.blend.history(block)) * scored.moments.inverses
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
        leading = parts.argmax(axis=2).astype(np.int32)
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

    Neighbors are named where there are `user_ids`, of all users.
    """

    explainer: Explainer
    kinds: MappedStrings
    models: MappedStrings
    user_ids: MappedStrings | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the explainer."""
        return self.explainer.columns

    def names(self, item_ids: MappedStrings) -> Names:
        """What the positions in the columns stand for."""
        users = {} if self.user_ids is None else {"because_user_ids": self.user_ids}
        return {"reasons": self.kinds, "reason_models": self.models, "because_item_ids": item_ids, **users}

    def of(self, block: Block, scored: Scored) -> list[pa.Array]:
        """The columns of reasons, one row a user."""
        is_fallback = np.isin(scored.tiers, list(FALLBACKS))
        listed = np.where(is_fallback[:, None], -1, scored.best.indices)
        found = self.explainer(block, scored, listed)
        for number, (tier, kind) in enumerate(FALLBACKS.items(), start=len(self.explainer.models)):
            users = scored.tiers == tier
            found.kinds[users], found.models[users] = kind, number
        return _columns(found, scored.best, self.user_ids is not None)


def named_models(explainer: Explainer) -> tuple[str, ...]:
    """The names of `ListReasons.models`, in their order."""
    return (*explainer.models, *FALLBACKS)


def no_reasons(n_users: int) -> list[pa.Array]:
    """The columns of reasons where none are given."""
    return [pa.nulls(n_users, to_arrow_type(column.type)) for column in REASON_COLUMNS]


def _columns(found: Explained, best: TopK, has_users: bool) -> list[pa.Array]:
    is_item = best.indices >= 0
    items = IndexLists(_starts(is_item.sum(axis=1)), np.zeros(int(is_item.sum()), np.uint8))
    kinds, models, terms = (
        found.kinds[is_item],
        found.models[is_item],
        Terms._make(part[is_item] for part in found.terms),
    )
    is_vote, is_named = (kinds == BECAUSE_USERS)[:, None], terms.columns >= 0
    is_shown = is_named if has_users else is_named & ~is_vote
    users = _nested(items, is_named & is_vote, terms.columns) if has_users else no_reasons(best.indices.shape[0])[3]
    return [
        lists_of(items, pa.array(kinds.astype(np.int32))),
        lists_of(items, pa.array(models)),
        _nested(items, is_named & ~is_vote, terms.columns),
        users,
        _nested(items, is_shown, terms.values),
        lists_of(items, pa.array(np.where(is_vote[:, 0], terms.counts, 0).astype(np.int32))),
        lists_of(items, pa.array(best.scores[is_item] - terms.sums)),
    ]


def _nested(items: IndexLists, is_there: NDArray[np.bool_], values: NDArray[Any]) -> pa.ListArray:
    """For each item of each list those values, (items, most), that are there."""
    inner = IndexLists(_starts(is_there.sum(axis=1)), values[is_there])
    return lists_of(items, lists_of(inner, pa.array(inner.indices)))


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
