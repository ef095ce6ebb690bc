"""Lists that are picked from more candidates than they hold, to be more diverse than by score alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.scorers import Scored, Scorer
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.diversity import diversify
from recsys_spark.kernels.topk import TopK


@dataclass(frozen=True)
class ItemCategories:
    """The categories of each item, numbered: two mapped arrays, which are those of `IndexLists`."""

    indptr: MappedArray
    indices: MappedArray

    def load(self) -> IndexLists:
        """Map the files read-only."""
        return IndexLists(self.indptr.load(), self.indices.load())


@dataclass(frozen=True)
class Diversity:
    """How many candidates lists are picked from, and how: as of `diversify`.

    `vectors` of all items, (items, d), mapped, have length 1, or 0 where there is none.
    """

    candidates: int
    weight: float
    vectors: MappedArray
    categories: ItemCategories | None = None
    max_per_category: int | None = None

    def rerank(self, best: TopK, k: int) -> TopK:
        """Pick lists of k from the first `candidates` of each; longer lists go on by score."""
        pool = TopK(best.indices[:, : self.candidates], best.scores[:, : self.candidates])
        picked = diversify(
            pool,
            min(k, self.candidates),
            self.weight,
            self.vectors.load(),
            None if self.categories is None else self.categories.load(),
            self.max_per_category or 1,
        )
        rest = slice(self.candidates, k)
        indices = np.hstack([picked.indices, best.indices[:, rest]])
        return TopK(indices, np.hstack([picked.scores, best.scores[:, rest]]))


@dataclass(frozen=True)
class DiverseScorer:
    """The lists of another scorer, re-ranked: their scores, which are the other's, need not fall.

    Memory of a task beyond that of the other: 12 bytes x candidates x users of a block.
    """

    inner: Scorer
    diversity: Diversity

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the other scorer."""
        return self.inner.columns

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k items picked for each user; lists of popular items are picked alike."""
        found = self.inner(block, excluded, max(k, self.diversity.candidates))
        return found._replace(best=self.diversity.rerank(found.best, k))
