"""What is popular with people like the user, where nothing but the user's segment, such as a country, is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_spark.blockwise.blocks import user_positions
from recsys_spark.blockwise.files import MappedArray
from recsys_spark.blockwise.plan import Block
from recsys_spark.blockwise.scorers import Scored, Scorer
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.ranked import put_first
from recsys_spark.kernels.topk import TopK


@dataclass(frozen=True)
class SegmentScorer:
    """Another scorer's lists; where they are of tier `popularity`, what is popular in the user's segment comes first.

    `segments` (users,) int32 is the segment of each user, -1 for none. Segment s has `items[indptr[s] : indptr[s + 1]]`
    int32, most popular first, with `scores` float32 above 0. Items that nobody of the segment has had follow in the
    order of the other scorer, whose popularity of 0 to `most` becomes -`most` to 0.
    """

    scorer: Scorer
    segments: MappedArray
    indptr: MappedArray
    items: MappedArray
    scores: MappedArray
    most: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the other scorer, and whose rows they are."""
        return (*self.scorer.columns, "first_user_idx", "indptr")

    def __call__(self, block: Block, excluded: IndexLists, k: int) -> Scored:
        """The k best items of each user."""
        scored = self.scorer(block, excluded, k)
        best, tiers = scored.best, scored.tiers
        segments = np.where(tiers == "popularity", self.segments.load()[user_positions(block)], np.int32(-1))
        has_segment = segments >= 0
        if not has_segment.any():
            return scored
        rest = TopK(best.indices, np.where(has_segment[:, None], best.scores - np.float32(self.most), best.scores))
        ranked = IndexLists(np.asarray(self.indptr.load()), self.items.load())
        found = put_first(ranked, self.scores.load(), segments, excluded, rest)
        return scored._replace(best=found, tiers=np.where(has_segment, "segment_popularity", tiers))
