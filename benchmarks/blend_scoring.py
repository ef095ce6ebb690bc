"""What a blend costs beside the models it is of: lists of a block of 1,024 users, by the blend and by each model alone.

`vectors`: the embedding model, content and popularity, which are one product. `all`: neighbors and `ease` too, whose
scores are added. Processor time of one core, in turns; `times_parts` is the blend's time by that of all its models.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.harness import run_cases, save, take_turns
from benchmarks.jobs import World
from benchmarks.models import embedded, held, one_shard, popular, voted, weighed
from recsys_spark.blockwise.blocks import TEST, TRAIN, VALIDATION, items_in_splits
from recsys_spark.blockwise.hybrid import Component, HybridScorer, ScoreComponent, SegmentWeights, VectorComponent
from recsys_spark.blockwise.profiles import EmbeddedProfile, ItemWeightProfile, NeighborProfile, PopularProfile
from recsys_spark.blockwise.scorers import ContentScorer, ItemWeightScorer, NeighborScorer, Scorer
from recsys_spark.blockwise.tastes import Tastes
from recsys_spark.kernels.blending import center_vectors
from recsys_spark.kernels.layout import EXTRA_COLUMNS
from recsys_spark.kernels.pooling import unit_rows

K, SEEN, CONTENT_DIMS = 10, 50, 128


@dataclass(frozen=True)
class Case:
    """A blend over so many items."""

    blend: str
    items: int

    @property
    def name(self) -> str:
        """As in `all-10k`."""
        return f"{self.blend}-{self.items // 1000}k"


SMALL = [Case("vectors", 50_000), Case("all", 10_000)]


def scorers(case: Case) -> tuple[pa.RecordBatch, dict[str, Scorer]]:
    """A block, and what scores it: the blend first."""
    (block,) = World(1024, case.items, seen=SEEN).blocks()
    block, embedding, _ = embedded(case.items, block)
    contents = unit_rows(np.random.default_rng(3).standard_normal((case.items, CONTENT_DIMS), np.float32))
    tastes = Tastes(held(contents), None, hold_out=False)
    padded = np.hstack([contents, np.zeros((case.items, EXTRA_COLUMNS), np.float32)])
    alone: dict[str, Scorer] = {"embedding": embedding, "content": ContentScorer(one_shard(padded), tastes)}
    vectors = World(1, case.items).item_vectors() / 8
    biased = np.hstack([vectors, np.zeros((case.items, 1), np.float32)])
    counts = np.random.default_rng(4).random((case.items, 1), np.float32)
    profiles = (EmbeddedProfile(biased.shape[1]), tastes, PopularProfile())
    centered = [center_vectors(each, np.ones(case.items, bool)) for each in (biased, contents, counts)]
    firsts = np.cumsum([0, *(each.vectors.shape[1] for each in centered)])
    components: list[Component] = [
        VectorComponent(name, profile, int(first), held(each.covariance))
        for name, profile, first, each in zip(
            ("embedding", "content", "popularity"), profiles, firsts[:-1], centered, strict=True
        )
    ]
    if case.blend == "all":
        block, neighbors, _ = voted(case.items, block, SEEN)
        block, ease, _ = weighed(case.items, block)
        assert isinstance(neighbors, NeighborScorer)
        assert isinstance(ease, ItemWeightScorer)
        alone |= {"neighbors": neighbors, "ease": ease}
        everything = held(np.arange(case.items, dtype=np.int32))
        components += [
            ScoreComponent("neighbors", NeighborProfile(neighbors.ranges, everything)),
            ScoreComponent("ease", ItemWeightProfile(ease.items, hold_out=False)),
        ]
    weights = SegmentWeights((), ((1.0,) * len(components),))
    items = one_shard(np.hstack([each.vectors for each in centered]))
    blend = HybridScorer(items, tuple(components), weights, hold_out=False, fallback=popular(case.items))
    return block, {"hybrid": blend, **alone}


def run(case: Case, rounds: int) -> None:
    block, contenders = scorers(case)
    excluded = items_in_splits(block, (TRAIN, VALIDATION, TEST))
    work = {name: lambda scorer=scorer: scorer(block, excluded, K) for name, scorer in contenders.items()}
    seconds = {name: np.array(each) for name, each in take_turns(work, rounds, time.thread_time).items()}
    ratio = seconds["hybrid"] / sum(each for name, each in seconds.items() if name != "hybrid")
    medians = {name: round(float(np.median(each)) / 1024 * 1e6, 1) for name, each in seconds.items()}
    line = {"benchmark": "blend_scoring", "case": case.name, "k": K, "microseconds_a_user": medians,
            "times_parts": round(float(np.median(ratio)), 2), "rounds": rounds}  # fmt: skip
    print(json.dumps(save("blend_scoring", line)), flush=True)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, SMALL, run)
