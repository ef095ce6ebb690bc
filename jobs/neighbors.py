"""Finds each user's nearest users by exact Euclidean distance."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.blockwise.neighbors import pack_neighbors
from recsys_spark.config import Settings
from recsys_spark.scoring import search_neighbors
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import NEIGHBOR_BLOCKS, SELECTION_NEIGHBOR_BLOCKS, USER_BLOCKS, USER_NEIGHBORS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `user_neighbors`, and for lists by neighbors `neighbor_blocks` and `selection_neighbor_blocks`."""
    if not settings.neighbors.enabled:
        return {"skipped": "neighbors.enabled = false"}
    count = storage.write_mapped(USER_NEIGHBORS, search_neighbors(storage, settings, hold_out=False))
    if settings.uses_neighbors:
        blocks, known = storage.read(USER_BLOCKS), storage.read(USER_NEIGHBORS)
        storage.write(NEIGHBOR_BLOCKS, pack_neighbors(blocks, known))
        found = search_neighbors(storage, settings, hold_out=True).frame()
        storage.write(SELECTION_NEIGHBOR_BLOCKS, pack_neighbors(blocks, found))
    return {"neighbors": count}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["neighbors", *sys.argv[1:]]))
