"""Finds each user's nearest users by exact Euclidean distance."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.scoring import search_neighbors
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import USER_NEIGHBORS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `user_neighbors`."""
    if not settings.neighbors.enabled:
        return {"skipped": "neighbors.enabled = false"}
    return {"neighbors": storage.write_mapped(USER_NEIGHBORS, search_neighbors(storage, settings, hold_out=False))}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["neighbors", *sys.argv[1:]]))
