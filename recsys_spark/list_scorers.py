"""Chooses what makes the lists: the model of the settings, and what is popular in the segments of users without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from recsys_spark.blockwise.plan import Blocks
from recsys_spark.blockwise.scorers import Scorer
from recsys_spark.blockwise.segments import SegmentScorer
from recsys_spark.hybrids import ranked_scorer
from recsys_spark.scoring import (
    Fit,
    content_scorer,
    distribute_folder,
    embedding_scorer,
    item_weight_scorer,
    known_items,
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


def candidate_items(storage: RunStorage, settings: Settings) -> DataFrame:
    """The items that lists can hold, as `item_idx`: those that the chosen model scores, or any of its components."""
    is_known = np.any(
        [known_items(storage, name) for name in settings.components or (settings.recommend.model,)], axis=0
    )
    positions = pd.DataFrame({"item_idx": np.flatnonzero(is_known).astype(np.int32)})
    return storage.spark.createDataFrame(positions, "item_idx int")


def _by_segment(storage: RunStorage, settings: Settings, fit: Fit, scorer: Scorer) -> Scorer:
    """The scorer, with the lists of users' segments in the place of those of all users, if there are segments."""
    if settings.popularity.segment is None:
        return scorer
    source, scratch = storage.download(f"{fit}-segments", storage.scratch), storage.scratch / f"{fit}-segments"
    if np.load(source / "indptr.npy", allow_pickle=False).size == 1:  # no segment has enough users
        return scorer
    return SegmentScorer(scorer, **distribute_folder(storage, source, scratch))
