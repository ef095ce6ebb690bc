"""The second stage: a network orders the union of each component's best items anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.hybrid import BlockBlend, HybridScorer, Weights
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.scorers import Scored, or_else
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.network import Network, network_scores, ranking_features
from recsys_spark.kernels.topk import TopK, empty_top_k

USERS_AT_ONCE = 64


def union_of_best(found: Iterable[TopK], n_users: int) -> IndexLists:
    """The items of several lists of each user, each once, ascending."""
    indices = np.concatenate([best.indices for best in found], axis=1)
    keys = np.repeat(np.arange(n_users), indices.shape[1]) << 32 | indices.ravel()
    keys = np.unique(keys[indices.ravel() >= 0])
    counts = np.bincount(keys >> 32, minlength=n_users)
    return IndexLists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), (keys & 0xFFFFFFFF).astype(np.int32))


def blended_sums(scores: NDArray[np.float32], weights: Weights, lists: IndexLists) -> NDArray[np.float32]:
    """The blend's scores of candidates, (p,), from those of the components, (p, c), and users' weights, (users, c)."""
    of_pairs = np.repeat(weights, np.diff(lists.indptr), axis=0)
    sums: NDArray[np.float32] = np.einsum("pc,pc->p", scores.astype(np.float64), of_pairs).astype(np.float32)
    return sums


@dataclass(frozen=True)
class MappedNetwork:
    """The arrays of a `Network`, mapped, in its order."""

    arrays: tuple[MappedArray, ...]

    def load(self) -> Network:
        """Map them."""
        return Network(*(array.load() for array in self.arrays))


@dataclass(frozen=True)
class RankedScorer:
    """Lists by a network, of each component's `candidates` best items; users without an item get the fallback's.

    `item_facts`, (n_items, 4), mapped, are those of `kernels.network`. Memory of a task beyond that of the blend: at
    most 4 x (components + 7) x components x candidates bytes for each of 64 users.
    """

    hybrid: HybridScorer
    network: MappedNetwork
    item_facts: MappedArray
    candidates: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the blend."""
        return self.hybrid.columns

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        history, blend = self.hybrid.history(block), BlockBlend(self.hybrid, block)
        best = empty_top_k(len(history), k, -np.inf, np.float32)
        for users in _parts(np.flatnonzero(history > 0)):
            found = list(blend.alone(users, excluded.take_rows(users), max(self.candidates, k)))
            lists = union_of_best(found, len(users))
            items, scores = self._ranked(blend, users, history[users], lists)
            _keep_best(best, users, lists, items, scores)
        scored = or_else(best, "ranker", self.hybrid.fallback, excluded, history == 0)
        return scored._replace(moments=blend.moments)

    def _ranked(
        self, blend: BlockBlend, users: NDArray[np.int64], history: NDArray[np.int64], lists: IndexLists
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        scores = blend.pairs(users, lists)
        sums = blended_sums(scores, self.hybrid.weights.of(history), lists)
        of_pairs = np.repeat(history, np.diff(lists.indptr))
        features = ranking_features(scores, sums, of_pairs, self.item_facts.load()[lists.indices])
        ranked = network_scores(features, sums, self.network.load())
        return lists.indices, self.hybrid.items.boosted(lists.indices, ranked)


def _parts(users: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(users), USERS_AT_ONCE):
        yield users[start : start + USERS_AT_ONCE]


def _keep_best(
    best: TopK, users: NDArray[np.int64], lists: IndexLists, items: NDArray[Any], scores: NDArray[np.float32]
) -> None:
    """Fill the users' lists with their highest scores, ties by the smaller item."""
    k = best.indices.shape[1]
    owners = np.repeat(np.arange(len(users)), np.diff(lists.indptr))
    order = np.lexsort((items, -scores, owners))
    ranks = np.arange(len(order)) - lists.indptr[owners]
    kept = ranks < k
    rows, places = users[owners[kept]], ranks[kept]
    best.indices[rows, places], best.scores[rows, places] = items[order[kept]], scores[order[kept]]
