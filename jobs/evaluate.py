"""Measures lists from a fit that has not seen the hold-out, beside the most popular items."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.blockwise.lists import measure_lists, reranked, scored_once
from recsys_spark.config import Settings
from recsys_spark.diversity import load_diversity
from recsys_spark.list_scorers import baseline_scorer, list_scorer
from recsys_spark.metrics.measure import count_training, gains_over, measure, sum_rows
from recsys_spark.predictions import measure_predictions
from recsys_spark.scoring import blocks_of
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import BY_SCORE, INTERACTIONS, ITEMS, METRIC_SUMS, METRICS, USER_BLOCKS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `metrics` and the sums they are made of; of re-ranked lists also those of the same lists by score alone."""
    ks, model = settings.evaluate.ks, settings.recommend.model
    trained = count_training(storage.read(INTERACTIONS), storage.count(ITEMS))
    blocks, scorer = list_scorer(storage, settings, "selection")
    popular = baseline_scorer(storage, settings, "selection")
    diversity = load_diversity(storage, settings, "selection")
    with (
        scored_once(measure_lists(blocks, scorer, max(ks), diversity)) as lists,
        scored_once(measure_lists(blocks_of(storage, USER_BLOCKS), popular, max(ks))) as popular_lists,
    ):
        chosen = {model: lists} if diversity is None else {model: reranked(lists), model + BY_SCORE: lists}
        vectors = None if diversity is None else diversity.vectors
        found = chosen | {"popularity": popular_lists}
        measured = {name: measure(each, name, ks, trained, vectors) for name, each in found.items()}
    rows = [row for each in measured.values() for row in each.rows] + measure_predictions(storage, settings)
    storage.write(METRICS, storage.spark.createDataFrame(rows, METRICS.schema).coalesce(1))
    storage.write(METRIC_SUMS, storage.spark.createDataFrame(sum_rows(measured), METRIC_SUMS.schema).coalesce(1))
    metrics = [row.asDict() for row in storage.read(METRICS).orderBy("model", "metric", "k").collect()]
    return {"metrics": metrics, "gains": gains_over(measured, "popularity")}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
