"""Measures lists from a fit that has not seen the hold-out, beside the most popular items."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.blockwise.lists import measure_lists, scored_once
from recsys_spark.config import Settings
from recsys_spark.metrics.measure import measure
from recsys_spark.scoring import blocks_of, list_scorer, popularity_scorer
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import ITEMS, METRICS, USER_BLOCKS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `metrics`."""
    ks, n_items = settings.evaluate.ks, storage.count(ITEMS)
    blocks, scorer = list_scorer(storage, settings, "selection")
    popular = popularity_scorer(storage, settings, "selection")
    with (
        scored_once(measure_lists(blocks, scorer, max(ks))) as lists,
        scored_once(measure_lists(blocks_of(storage, USER_BLOCKS), popular, max(ks))) as popular_lists,
    ):
        chosen = measure(lists, settings.recommend.model, ks, n_items)
        baseline = measure(popular_lists, "popularity", ks, n_items)
        storage.write(METRICS, chosen.unionByName(baseline).coalesce(1))
    return {"metrics": [row.asDict() for row in storage.read(METRICS).orderBy("model", "metric", "k").collect()]}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
