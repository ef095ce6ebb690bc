"""Chooses what makes the lists: the model of the settings, and what is popular in the segments of users without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.blockwise.files import MappedArray, distribute_array, save_arrays
from recsys_spark.blockwise.plan import Blocks
from recsys_spark.blockwise.scorers import Scorer
from recsys_spark.blockwise.segments import SegmentScorer
from recsys_spark.hybrids import ranked_scorer
from recsys_spark.kernels.boosts import boost
from recsys_spark.scoring import (
    Fit,
    content_scorer,
    distribute_folder,
    embedding_scorer,
    item_factors,
    item_weight_scorer,
    neighbor_scorer,
    popularity_scorer,
)

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

_SCORERS = {
    "embedding": embedding_scorer,
    "neighbors": neighbor_scorer,
    "content": content_scorer,
    "ease": item_weight_scorer,
    "graph_filter": item_weight_scorer,
    "hybrid": ranked_scorer,
}


def list_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[Blocks, Scorer]:
    """The blocks to score and the scorer that the settings choose."""
    blocks, scorer = _SCORERS[settings.recommend.model](storage, settings, fit)
    return blocks, _by_segment(storage, settings, fit, scorer)


def baseline_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> Scorer:
    """Lists by popularity for everybody, in each user's segment where there is one: what others are measured beside."""
    return _by_segment(storage, settings, fit, popularity_scorer(storage, settings, fit))


def _by_segment(storage: RunStorage, settings: Settings, fit: Fit, scorer: Scorer) -> Scorer:
    """The scorer, with the lists of users' segments in the place of those of all users, if there are segments."""
    if settings.popularity.segment is None:
        return scorer
    source, scratch = storage.download(f"{fit}-segments", storage.scratch), storage.scratch / f"{fit}-segments"
    if np.load(source / "indptr.npy", allow_pickle=False).size == 1:  # no segment has enough users
        return scorer
    factors = item_factors(storage, settings, fit)
    if factors is None:
        return _with_segments(scorer, distribute_folder(storage, source, scratch), 1.0)
    arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in source.glob("*.npy")}
    paths = save_arrays(scratch, {**arrays, **_ruled(arrays, factors)})
    shared = {name: distribute_array(storage.spark, path) for name, path in paths.items()}
    return _with_segments(scorer, shared, max(1.0, float(factors.max())))


def _with_segments(scorer: Scorer, arrays: dict[str, MappedArray], most: float) -> SegmentScorer:
    return SegmentScorer(scorer, arrays["segments"], arrays["indptr"], arrays["items"], arrays["scores"], most)


def _ruled(arrays: dict[str, NDArray[Any]], factors: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The rankings of segments with what may be listed, by scores times its factor; equal ones by the smaller item."""
    items, indptr = arrays["items"], arrays["indptr"]
    kept = np.flatnonzero(factors[items])
    segments = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))[kept]
    scores = boost(arrays["scores"][kept], factors[items[kept]])
    order = np.lexsort((items[kept], -scores, segments))
    starts = np.searchsorted(segments, np.arange(len(indptr))).astype(np.int64)
    return {"indptr": starts, "items": items[kept][order], "scores": scores[order]}
