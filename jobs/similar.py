"""Writes similar users and similar items by the distance of their embeddings."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.blockwise.similar import find_similar
from recsys_spark.config import Settings
from recsys_spark.scoring import embedded_items, embedded_users
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import SIMILAR_ITEMS, SIMILAR_USERS


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `similar_users` and `similar_items`, as far as the settings want them."""
    facts, k = {}, settings.similar.top_k
    if settings.similar.users:
        users = embedded_users(storage, settings)
        facts["users"] = storage.write_mapped(SIMILAR_USERS, find_similar(storage.spark, users, k, SIMILAR_USERS))
    if settings.similar.items:
        items = embedded_items(storage, settings)
        facts["items"] = storage.write_mapped(SIMILAR_ITEMS, find_similar(storage.spark, items, k, SIMILAR_ITEMS))
    return facts


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["similar", *sys.argv[1:]]))
