"""Checks what is about to be published; a failed check refuses the run and the one before stays current."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts, audit_lists, require_passed
from recsys_spark.config import Settings
from recsys_spark.rules import possible_lists
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import RECOMMENDATIONS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Check `recommendations`."""
    free, n_users = possible_lists(storage, settings)
    lists, is_reranked = storage.read(RECOMMENDATIONS), settings.diversity.is_on
    checks = audit_lists(lists, free, n_users, settings.recommend.top_k, settings.audit, is_reranked)
    require_passed(checks, storage.run.path)
    return {"checks": [str(check) for check in checks]}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["audit", *sys.argv[1:]]))
