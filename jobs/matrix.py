"""Builds the sparse user-item matrix in row blocks."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import INTERACTIONS, USER_BLOCKS, USERS
from recsys_spark.transforms.matrix import build_user_blocks


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `user_blocks`."""
    users, interactions = storage.read(USERS), storage.read(INTERACTIONS)
    blocks = build_user_blocks(users, interactions, settings.matrix.block_users, storage.run.run_date)
    return {"blocks": storage.write(USER_BLOCKS, blocks), "block_users": settings.matrix.block_users}


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["matrix", *sys.argv[1:]]))
