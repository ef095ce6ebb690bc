"""Between the tables and the linear model of items by items: learned on the driver, kept with the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys_spark.audit import Facts
from recsys_spark.blockwise.files import save_arrays
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import IndexLists, rows_of_ones
from recsys_spark.kernels.fold_in import places_of, rows_among
from recsys_spark.kernels.item_models import ease_weights
from recsys_spark.learning import SEEN, FitName, read_pairs

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def learn_item_weights(storage: RunStorage, settings: Settings) -> Facts:
    """Fit twice, as the embeddings: without the hold-out, for the metrics, and on everything, for the lists."""
    items = {f"{name}_items": _learn(storage, settings, name) for name in SEEN}
    return {"l2": settings.ease.l2, **items}


def _learn(storage: RunStorage, settings: Settings, name: FitName) -> int:
    pairs = read_pairs(storage, SEEN[name])
    is_candidate = pairs.item_counts() >= settings.model.min_item_interactions
    count, most = int(is_candidate.sum()), settings.ease.max_items
    if count > most:
        raise RecsysError(
            f"recommend.model = 'ease' has weights of {count:,} x {count:,} items, over ease.max_items = {most:,}: "
            "raise it where the driver has 16 bytes for each, or model.min_item_interactions, or use another model"
        )
    places = places_of(is_candidate)
    rows = rows_among(rows_of_ones(IndexLists(pairs.indptr(), pairs.item_idx), pairs.n_items), places, count, 1)
    folder = storage.scratch / f"{name}-ease-export"
    save_arrays(
        folder,
        {
            "weights": ease_weights(rows, settings.ease.l2),
            "positions": np.flatnonzero(is_candidate).astype(np.int32),
            "places": places,
        },
    )
    storage.upload(folder, f"{name}-ease")
    return count
