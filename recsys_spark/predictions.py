"""How far the embedding model's predictions of held-out pairs are from what was observed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from recsys_spark.blockwise.held_out import ABSOLUTE_ERROR, GAUC, SQUARED_ERROR, PairPredictor, predict_held_out
from recsys_spark.metrics.confidence import mean_interval
from recsys_spark.metrics.measure import Metric, add_up_pairs, metric_row
from recsys_spark.scoring import blocks_of, scored_items
from recsys_spark.tables import SELECTION_EMBEDDINGS, USER_BLOCKS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage


def measure_predictions(storage: RunStorage, settings: Settings) -> list[Metric]:
    """Rows of `metrics` of the model `embedding`: RMSE and MAE where it predicts ratings, GAUC where that is asked for.

    On the scale of the ratings; by the fit that has not seen the hold-out; pairs whose user or item it does not know
    are left out. Not where ratings are all the same.
    """
    model, facts = settings.model, storage.step_details("interactions")
    low, high = facts["value_range"]
    predicts_ratings = model.predicts_ratings and low < high
    if not predicts_ratings and not settings.evaluate.auc_samples:
        return []
    items, hidden = scored_items(storage, settings, "selection")
    lowest = facts["lowest"] if predicts_ratings else None
    predictor = PairPredictor(items, hidden, lowest, model.is_logistic, settings.evaluate.auc_samples, settings.seed)
    predicted = predict_held_out(blocks_of(storage, USER_BLOCKS, SELECTION_EMBEDDINGS), predictor)
    sums = add_up_pairs(predicted.frame(), (SQUARED_ERROR, ABSOLUTE_ERROR, GAUC))
    stars = (high - low) / (1.0 - facts["lowest"])  # of an error of 1
    rows = []
    for (name, k), each in sums.items():
        values, pairs = (each.mean, *mean_interval(each)), int(each.users.sum())
        if name == SQUARED_ERROR:
            rows.append(
                metric_row("embedding", ("rmse", k), *(stars * math.sqrt(value) for value in values), users=pairs)
            )
        elif name == ABSOLUTE_ERROR:
            rows.append(metric_row("embedding", ("mae", k), *(stars * value for value in values), users=pairs))
        else:
            rows.append(metric_row("embedding", (name, k), *values, users=pairs))
    return rows
