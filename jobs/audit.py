"""Checks what is about to be published; a failed check refuses the run and the one before stays current."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts, audit_lists, free_items, require_passed
from recsys_spark.config import Settings
from recsys_spark.list_scorers import candidate_items
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import INTERACTIONS, RECOMMENDATIONS, USERS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Check `recommendations`."""
    lists, recommend = storage.read(RECOMMENDATIONS), settings.recommend
    interactions = storage.read(INTERACTIONS)
    free = free_items(storage.read(USERS), interactions, candidate_items(storage, settings), recommend.exclude_seen)
    is_reranked = settings.diversity.is_on
    checks = audit_lists(lists, free, storage.count(USERS), recommend.top_k, settings.audit, is_reranked)
    require_passed(checks, storage.run.path)
    return {"checks": [str(check) for check in checks]}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["audit", *sys.argv[1:]]))
