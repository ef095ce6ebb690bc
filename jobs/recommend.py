"""Scores every user against every item and writes the best."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.blockwise.diversity import DiverseScorer
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.lists import recommend
from recsys_spark.config import Settings
from recsys_spark.diversity import load_diversity
from recsys_spark.list_checks import count_lists
from recsys_spark.list_scorers import list_scorer
from recsys_spark.reasons import load_reasons
from recsys_spark.rules import list_rules, write_requested
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import ITEMS, RECOMMENDATIONS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `recommendations`."""
    blocks, scorer = list_scorer(storage, settings, "model")
    reasons = load_reasons(storage, settings, scorer)
    if (diversity := load_diversity(storage, settings, "model")) is not None:
        scorer = DiverseScorer(scorer, diversity)
    item_ids = distribute_ids(storage.spark, storage.fetch(ITEMS, storage.scratch), "item", storage.scratch / "ids")
    chosen, rules = settings.recommend, list_rules(storage, settings)
    lists = recommend(blocks, scorer, item_ids, chosen.top_k, chosen.exclude_seen, reasons, rules)
    count = storage.write_mapped(RECOMMENDATIONS, lists)
    return {"users": count, **count_lists(storage.read(RECOMMENDATIONS)), **write_requested(storage, settings)}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["recommend", *sys.argv[1:]]))
