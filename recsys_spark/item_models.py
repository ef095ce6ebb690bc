"""Between the tables and the linear models of items by items: learned on the driver, kept with the run."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.blockwise.files import save_arrays
from recsys_spark.errors import RecsysError
from recsys_spark.kernels.csr import CsrRows, IndexLists, rows_of_ones
from recsys_spark.kernels.fold_in import places_of, rows_among
from recsys_spark.kernels.item_models import ease_weights, graph_filter_weights
from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.threads import one_thread
from recsys_spark.learning import SEEN, FitName, read_pairs

if TYPE_CHECKING:
    from recsys_spark.blend_sections import ItemModelName
    from recsys_spark.config import Settings
    from recsys_spark.models.interactions import TrainingPairs
    from recsys_spark.storage.run_storage import RunStorage


def learn_item_weights(storage: RunStorage, settings: Settings, model: ItemModelName) -> Facts:
    """Fit twice, as the embeddings: without the hold-out, for the metrics, and on everything, for the lists."""
    return {f"{fit}_items": _learn(storage, settings, fit, model) for fit in SEEN}


def _learn(storage: RunStorage, settings: Settings, fit: FitName, model: ItemModelName) -> int:
    folder = storage.scratch / f"{fit}-{model}-export"
    arrays = fit_item_weights(read_pairs(storage, SEEN[fit]), settings, model)
    save_arrays(folder, arrays)
    storage.upload(folder, f"{fit}-{model}")
    shutil.rmtree(folder)  # gigabytes, which the steps to come need on this disk
    return len(arrays["weights"])


def fit_item_weights(pairs: TrainingPairs, settings: Settings, model: ItemModelName) -> dict[str, NDArray[Any]]:
    """The `weights` of items by items, (m, m), their `positions`, (m,), and the `places` of all items among them.

    Raises:
        RecsysError: there are more items than the settings allow.
    """
    is_candidate = pairs.item_counts() >= settings.model.min_item_interactions
    count, most = int(is_candidate.sum()), getattr(settings, model).max_items
    if count > most:
        raise RecsysError(
            f"{model} has weights of {count:,} x {count:,} items, over {model}.max_items = {most:,}: raise it where "
            "the driver has the memory that docs/scaling.md states, or model.min_item_interactions, or do without it"
        )
    places = places_of(is_candidate)
    rows = rows_among(rows_of_ones(IndexLists(pairs.indptr(), pairs.item_idx), pairs.n_items), places, count, 1)
    positions = np.flatnonzero(is_candidate).astype(np.int32)
    return {"weights": _weights(rows, settings, model), "positions": positions, "places": places}


def _weights(rows: CsrRows, settings: Settings, model: ItemModelName) -> Floats:
    if model == "ease":
        return ease_weights(rows, settings.ease.l2)
    chosen = settings.graph_filter
    with one_thread():
        return graph_filter_weights(rows, chosen.dims, chosen.low_pass, settings.seed)
